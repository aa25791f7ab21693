#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The quickstart's way from a man page to text and to pairs of question and answer.
# Usage: manpages.sh TOOLS
set -eu
tools=$1
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
.fi
.SH DESCRIPTION
The
.BR open ()
system call\fB opens\fP the "file" \(aqx\e0\(aq.
.TS
left out
.TE
.IP \(bu 3
One.
.EX
    a = b;
.EE
END
cat > "$work/want.txt" << 'END'
NAME

open, creat - open and possibly create a file

SYNOPSIS

#include <fcntl.h>      /* Definition of AT_* constants */
#include <unistd.h>

int open(const char *pathname, int flags, mode_t mode);
[[noreturn]] void _exit(int status);
int syscall(SYS_open, int x);

DESCRIPTION

The open() system call opens the "file" 'x\0'.

* One.

    a = b;

END
cat > "$work/want.jsonl" << 'END'
{"prompt": "Which header declares open?", "completion": "<unistd.h>"}
{"prompt": "Which header declares _exit?", "completion": "<unistd.h>"}
END
cd "$work"
LC_ALL=C awk -v out=plain -f "$tools/roff.awk" open.2
LC_ALL=C awk -f "$tools/declares.awk" plain/open.2 > got.jsonl
diff want.txt plain/open.2
diff want.jsonl got.jsonl
