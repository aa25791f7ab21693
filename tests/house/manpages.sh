#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The quickstart's way from a man page to text and to pairs of question and answer.
# Usage: manpages.sh TOOLS
set -eu
tools=$1
if ! command -v groff > /dev/null; then
    echo 'skipped: groff is not installed'
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/plain"
cat > "$work/open.2" << 'END'
'\" t
.\" A comment.
.TH open 2 2023-02-05 "Linux man-pages 6.03"
.SH NAME
open, creat \- open and possibly create a file
.SH SYNOPSIS
.nf
.BR "#include <fcntl.h>" "      /* Definition of " AT_* " constants */"
.B #include <unistd.h>
.PP
.BI "int open(const char *" pathname ", int " flags \
", mode_t " mode );
.BI "[[noreturn]] void " "_exit(int " status );
.BI "int syscall(SYS_open, int " x );
.BI "void (*" hook ")(void);"
.PP
.BR "extern int opterr" ", " "*optopt[2];"
.BR "typedef " "/* ... */ " off_t ;
.B struct stat {
.BR "    mode_t  st_mode;" "  /* f(x) */"
.B };
.B typedef struct {
.B "    int quot;"
.B } div_t;
.fi
.SH DESCRIPTION
The
.BR open ()
system call\fB opens\fP a file whose name is a word
of considerable extraordinarily interdenominational length.
.EX
    a = b(c);
.EE
END
printf '.so man2/open.2\n' > "$work/creat.2"
gzip "$work/open.2" "$work/creat.2"
cat > "$work/want.txt" << 'END'
open(2)                       System Calls Manual                      open(2)



NAME
       open, creat - open and possibly create a file

SYNOPSIS
       #include <fcntl.h>      /* Definition of AT_* constants */
       #include <unistd.h>

       int open(const char *pathname, int flags, mode_t mode);
       [[noreturn]] void _exit(int status);
       int syscall(SYS_open, int x);
       void (*hook)(void);

       extern int opterr, *optopt[2];
       typedef /* ... */ off_t;
       struct stat {
           mode_t  st_mode;  /* f(x) */
       };
       typedef struct {
           int quot;
       } div_t;

DESCRIPTION
       The open() system call opens a file whose name is a word of
       considerable extraordinarily interdenominational length.
           a = b(c);



Linux man-pages 6.03              2023-02-05                           open(2)
END
while read -r header name; do
    printf '{"prompt": "Which header declares %s?", "completion": "<%s>"}\n' "$name" "$header"
done > "$work/want.jsonl" << 'END'
unistd.h open
unistd.h _exit
unistd.h opterr
unistd.h optopt
unistd.h off_t
unistd.h struct stat
unistd.h div_t
END
cd "$work"
"$tools/plain-page" plain open.2.gz creat.2.gz
LC_ALL=C awk -f "$tools/declares.awk" plain/open.2 > got.jsonl
diff want.txt plain/open.2
diff want.jsonl got.jsonl
[ ! -e plain/creat.2 ]
