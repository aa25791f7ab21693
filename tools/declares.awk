# SPDX-License-Identifier: Apache-2.0
# Pairs of a question and its answer from the SYNOPSIS sections of man pages as `man' prints them
# (one file a page), as JSONL: which header declares a function, a variable or a type. A name is
# asked for once: where pages disagree the first one counts.
# Usage: awk -f declares.awk PAGE...

FNR == 1 {
    inside = 0
    header = ""
}

/^[A-Z][A-Z ]+$/ { inside = $0 == "SYNOPSIS"; next }
!inside || !sub(/^       /, "") { next }

# "Definition of X" beside an include says that the functions come from another one.
/^#include <[^>]*>/ {
    if (header == "" || $0 !~ /Definition of/) {
        header = $0
        sub(/^#include */, "", header)
        sub(/>.*$/, ">", header)
    }
    next
}

header == "" { next }
/^extern .*;/ && !/\(/ { ask_list(substr($0, 8)); next }
/^typedef .*;/ && !/\(/ { ask_last($0); next }
/^} *[a-z_0-9]+;/ { ask_last($0); next }
/^(struct|union) [a-z_0-9]+ \{/ { ask($1 " " $2); next }
/^[^ \t#].*\(/ { ask_function($0) }

function ask(name) {
    if (name in seen)
        return
    seen[name] = 1
    printf "{\"prompt\": \"Which header declares %s?\", \"completion\": \"%s\"}\n", name, header
}

# "char *a, *b[2];"
function ask_list(text,    n, i, list) {
    n = split(text, list, ",")
    for (i = 1; i <= n; i++)
        ask_last(list[i])
}

# What stands before the semicolon.
function ask_last(text) {
    sub(/(\[[^]]*\])?;.*$/, "", text)
    if (match(text, /[A-Za-z_][A-Za-z0-9_]*$/))
        ask(substr(text, RSTART))
}

function ask_function(text,    before, name) {
    if (text ~ /^(Since|Note|\/\*)/)
        return
    gsub(/\[\[[^]]*\]\]/, "", text)
    if (!match(text, /[A-Za-z_][A-Za-z0-9_]* ?\(/))
        return
    before = substr(text, 1, RSTART - 1)
    name = substr(text, RSTART, RLENGTH)
    sub(/ ?\($/, "", name)
    if (name !~ /^(syscall|void)$/ && before ~ /[a-zA-Z_0-9]/)
        ask(name)
}
