# SPDX-License-Identifier: Apache-2.0
# Pairs of a question and its answer from the SYNOPSIS sections of man pages that roff.awk has made
# plain (one file a page), as JSONL: which header declares a function.
# Usage: awk -f declares.awk PAGE...

FNR == 1 {
    inside = 0
    header = ""
}

/^[A-Z][A-Z ]+$/ { inside = $0 == "SYNOPSIS"; next }
!inside { next }

# "Definition of X" beside an include says that the functions come from another one.
/^#include <[^>]*>/ {
    if (header == "" || $0 !~ /Definition of/) {
        header = $0
        sub(/^#include */, "", header)
        sub(/>.*$/, ">", header)
    }
    next
}

/^[^ \t#].*\(/ && header != "" {
    name = $0
    if (name ~ /^(Feature Test|Since|Note|typedef|struct [a-z_]* *\{|\/\*)/)
        next
    gsub(/\[\[[^]]*\]\]/, "", name)
    if (!match(name, /[A-Za-z_][A-Za-z0-9_]* ?\(/))
        next
    before = substr(name, 1, RSTART - 1)
    name = substr(name, RSTART, RLENGTH)
    sub(/ ?\($/, "", name)
    if (name == "syscall" || before !~ /[a-zA-Z_0-9]/ || (name, header) in seen)
        next
    seen[name, header] = 1
    printf "{\"prompt\": \"Which header declares %s?\", \"completion\": \"%s\"}\n", name, header
}
