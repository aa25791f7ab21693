# SPDX-License-Identifier: Apache-2.0
# A man page's roff source as plain text: one paragraph a line, a blank line between paragraphs,
# synopses and examples line by line. Tables and unknown requests are left out.
# Usage: awk -v out=FOLDER -f roff.awk PAGE...      writes FOLDER/PAGE

BEGIN {
    split("B I SB SM", list, " ")
    for (i in list)
        font[list[i]] = " "
    split("BR IR BI IB RB RI", list, " ")
    for (i in list)
        font[list[i]] = "alternating"
}

FNR == 1 {
    flush_paragraph()
    if (file != "")
        close(file)
    file = FILENAME
    sub(/^.*\//, "", file)
    file = out "/" file
    verbatim = table = 0
    held = ""
}

# A line that ends in a backslash goes on in the next.
{
    line = held $0
    held = ""
    if (line ~ /[^\\]\\$/ && line !~ /^[.']\\"/) {
        held = substr(line, 1, length(line) - 1)
        next
    }
}

line ~ /^[.'][ \t]*\\"/ || line ~ /^[.'][ \t]*$/ { next }
line ~ /^\.TS/ { table = 1 }
line ~ /^\.TE/ { table = 0; next }
table { next }
line ~ /^[.']/ { take_request(line); next }
{ take_text(clean(line)) }

END { flush_paragraph() }

function take_request(line,    name, rest) {
    name = line
    sub(/^[.'][ \t]*/, "", name)
    rest = name
    sub(/[ \t].*$/, "", name)
    if (!sub(/^[^ \t]+[ \t]+/, "", rest))
        rest = ""
    if (name in font) {
        take_text(join_arguments(rest, font[name] == " " ? " " : ""))
    } else if (name == "SH" || name == "SS") {
        flush_paragraph()
        take_text(join_arguments(rest, " "))
        flush_paragraph()
    } else if (name ~ /^(PP|P|LP|TP|TQ|HP|sp|RS|RE)$/) {
        flush_paragraph()
    } else if (name == "IP") {
        flush_paragraph()
        take_text(first_argument(rest))
    } else if (name == "br") {
        if (!verbatim)
            flush_paragraph()
    } else if (name ~ /^(nf|EX)$/) {
        flush_paragraph()
        verbatim = 1
    } else if (name ~ /^(fi|EE)$/) {
        flush_paragraph()
        verbatim = 0
    } else if (name ~ /^(UR|MT)$/) {
        take_text("<" clean(rest) ">")
    }
}

function take_text(text) {
    if (verbatim) {
        print text > file
        open_lines = 1
    } else if (text != "") {
        sub(/^[ \t]+/, "", text)
        paragraph = paragraph == "" ? text : paragraph " " text
    }
}

function flush_paragraph() {
    if (paragraph != "")
        print paragraph "\n" > file
    else if (open_lines)
        print "" > file
    paragraph = ""
    open_lines = 0
}

# Splits a request's line into its arguments, quotes removed, in argument[1..n]; returns n.
function split_arguments(rest,    n, end) {
    n = 0
    sub(/[ \t]*\\".*$/, "", rest)
    while (rest != "") {
        sub(/^[ \t]+/, "", rest)
        if (rest == "")
            break
        if (substr(rest, 1, 1) == "\"") {
            rest = substr(rest, 2)
            end = index(rest, "\"")
            if (!end)
                end = length(rest) + 1
        } else {
            match(rest, /^(\\ |[^ \t])+/)
            end = RLENGTH + 1
        }
        argument[++n] = clean(substr(rest, 1, end - 1))
        rest = substr(rest, end + 1)
    }
    return n
}

function join_arguments(rest, separator,    n, i, text) {
    n = split_arguments(rest)
    text = ""
    for (i = 1; i <= n; i++)
        text = text (i > 1 ? separator : "") argument[i]
    return text
}

function first_argument(rest) {
    return split_arguments(rest) ? argument[1] : ""
}

function clean(text) {
    gsub(/\\f\[[^]]*\]|\\f\(..|\\f./, "", text)
    gsub(/\\s[-+]?[0-9]/, "", text)
    gsub(/\\\*\[[^]]*\]|\\\*\(..|\\\*./, "", text)
    gsub(/\\\(aq|\\\[aq\]|\\\(cq|\\\[cq\]|\\\(oq|\\\[oq\]/, "'", text)
    gsub(/\\\(dq|\\\[dq\]|\\\(lq|\\\[lq\]|\\\(rq|\\\[rq\]/, "\"", text)
    gsub(/\\\(ha|\\\[ha\]/, "^", text)
    gsub(/\\\(ti|\\\[ti\]/, "~", text)
    gsub(/\\\(ga|\\\[ga\]/, "`", text)
    gsub(/\\\(bu|\\\[bu\]/, "*", text)
    gsub(/\\\(em|\\\[em\]/, "--", text)
    gsub(/\\\(en|\\\[en\]|\\\(mi|\\\[mi\]/, "-", text)
    gsub(/\\\(mu|\\\[mu\]/, "x", text)
    gsub(/\\\(rs|\\\[rs\]/, "\\", text)
    gsub(/\\\(..|\\\[[^]]*\]/, "", text)
    gsub(/\\-/, "-", text)
    gsub(/\\[ ~0]/, " ", text)
    gsub(/\\[&|^%:\/,c)]/, "", text)
    gsub(/\\e|\\\\/, "\\", text)
    return text
}
