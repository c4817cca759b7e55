#!/bin/sh
# A handler in bash: `legivellum work --capability text.count -- examples/workers/handler.sh`.
# It counts the words of the file that the task points to. 75 gives the task back: the file may come later.
set -eu
file=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["payload_pointer"])' < "$LEGIVELLUM_WORK_DIR/task.json")
case $file in file:*) file=${file#file:}; file=${file#//} ;; *) echo "not a file: $file" >&2; exit 2 ;; esac
[ -e "$file" ] || exit 75
wc -w < "$file" | tr -d ' ' > "$LEGIVELLUM_WORK_DIR/output"
