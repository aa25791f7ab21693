#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The command line: exit codes, one clear line an error, precedence of options, continuing a run,
# and what --help may say.
# Usage: cli.sh TAILRACE
set -u
tailrace=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$(dirname "$0")/tiny.sh"
failed=0
export NO_COLOR=1

say() {
    printf 'cli.sh: %s\n' "$*"
    failed=1
}

# gives CODE WORDS ARGUMENTS...: exit code, and an error whose first line holds WORDS.
gives() {
    local code=$1 words=$2 got first
    shift 2
    "$tailrace" "$@" > "$work/out" 2> "$work/err"
    got=$?
    first=$(head -n 1 "$work/err")
    [ $got -eq "$code" ] || say "exit $got, not $code: $* ($first)"
    case $first in
    *"$words"*) ;;
    *) say "no '$words' in '$first': $*" ;;
    esac
    if [ "$code" -eq 1 ] && [ "$(wc -l < "$work/err")" -ne 1 ]; then
        say "not one line: $*"
        cat "$work/err"
    fi
}

# wrong usage
gives 2 'a command is missing'
gives 2 "unknown command 'trian'; did you mean 'train'?" trian
gives 2 "unknown command 'report'" report
gives 2 '--model or --arch is missing' plan --seq-len 3
gives 2 '--drives: 0 is less than 1' plan --arch llama-7b --drives 0
gives 2 "--drive-read: 'x' is not a number" plan --arch llama-7b --drive-read 7,x
gives 2 "--drive-life: '' is not a number" plan --arch llama-7b --drive-life 600,
gives 1 '--drive-write: 2 speeds for 3 drives' plan --arch llama-7b --machine h200 --drives 3 \
    --drive-write 6,3
gives 1 '--pcie: 1e-300 GB/s is no speed' plan --arch llama-7b --machine h200 --pcie 1e-300
gives 1 'rtx-3090, rtx-4090, rtx-5090, h200' plan --arch llama-7b --machine rtx-2090
gives 1 'no-such-shape: neither a known shape' plan --arch no-such-shape --machine h200
gives 2 '--model or --arch is missing' train --data x --out y
gives 2 '--data is missing' train --model x --out y
gives 2 '--out is missing' train --model x --data y
gives 2 'exclude each other' train --model x --arch y --data z --out o
gives 2 'exclude each other' train --model x --data z --out o --steps 3 --epochs 2
gives 2 "unrecognized option '--cube-rank=3'" train --cube-rank=3
gives 2 'requires an argument' train --lr
gives 2 "--lr: 'x' is not a number" train --lr x
gives 2 'is not a size' train --device-memory 3gb
gives 2 'none of: lomo, sgd, adalomo, adam-mini, adamw' train --optimizer adam
gives 2 "unexpected argument 'x'" train x
gives 2 'RUN is missing' verify
gives 2 'RUN is missing' export --out x
gives 2 'PATH is missing' inspect
gives 2 '--vocab is missing' tokenizer --data x --out y
gives 2 '--prompt or --prompts is missing' generate --model x
gives 2 '--json needs --prompt or --prompts' generate --model x --chat --json
gives 2 '--show needs --exact-match' eval --model x --data y --show 3

# help
for command in init plan train eval generate export preview tokenizer inspect verify bench; do
    gives 0 '' "$command" --help
    grep -q "^Usage: tailrace $command" "$work/out" || say "no usage line: $command"
done
# no option is lost behind the many of training
"$tailrace" plan --help > "$work/out"
for own in machine pcie drive-read drive-write drives ram drive-life config json; do
    grep -q -- "--$own" "$work/out" || say "plan --help lacks --$own"
done
gives 0 '' --help
gives 0 '' --version
grep -qx 'tailrace [0-9.]*' "$work/out" || say 'no version'
"$tailrace" train --help > "$work/out"
for unbuilt in trace; do
    ! grep -q -- "$unbuilt" "$work/out" || say "--help speaks of $unbuilt"
done

# files that are not there or not right
cd "$work" || exit 1
gives 1 'none' train --model none --data none --out run
[ ! -e run ] || say 'a failed train left its folder'
gives 1 'nothere.yaml' train --config nothere.yaml
printf 'lr: 0.1\nbatch_size: 3\n' > bad.yaml
gives 1 "bad.yaml:2: unknown option 'batch_size'; did you mean 'batch-size'?" \
    train --config bad.yaml
gives 1 'no\nthere' inspect $'no\nthere'
gives 1 'nothere' inspect nothere
gives 1 'nothere' verify nothere
gives 1 'nothere' export nothere --out x
gives 1 'nothere' generate --model nothere --prompt x
gives 1 'nothere' eval --model nothere --data x
gives 1 'nothere' tokenizer --data nothere --vocab 300 --out x
gives 1 'nothere' preview --data nothere --tokenizer nothere
[ ! -e x ] || say 'a failed command left its folder'

make_tiny_model "$tailrace" "$work" || say 'no tiny model'

# the quickstart refuses half an own job before it does anything, and takes paths from here
quickstart() {
    local code=$1 words=$2
    shift 2
    env "$@" > "$work/out" 2> "$work/err"
    [ $? -eq "$code" ] && grep -q -- "$words" "$work/out" "$work/err" || say "quickstart: $*"
}
script=${0%/*}/../../tools/quickstart
quickstart 0 'MODEL=DIR DATA=FILE' "$script" --help
quickstart 2 "unexpected argument 'x'" "$script" x
quickstart 2 'DATA is missing' MODEL=model DATA= "$script"
quickstart 2 'MODEL is missing' MODEL= DATA=text.txt "$script"
quickstart 1 'nothere: No such file' MODEL=model DATA=nothere "$script"

# a model folder is no run, and a vocabulary has bounds
gives 1 'model: is not a run' export model --out x
gives 1 'model: is not a run' verify model
gives 1 'a vocabulary of 260 pieces: it must be between 261 and' \
    tokenizer --data text.txt --vocab 260 --out x
gives 1 'a vocabulary of 99999999999 pieces: it must be between 261 and' \
    tokenizer --data text.txt --vocab 99999999999 --out x

# and a run is no model
mkdir bare-run && : > bare-run/run.yaml
is_run="is a run and no model: \`tailrace train --resume' continues it"
gives 1 "$is_run" train --model bare-run --data text.txt --out x
gives 1 "$is_run" plan --model bare-run
gives 1 "$is_run" preview --data text.txt --model bare-run

# nor are adapters
mkdir adapters && echo {} > adapters/adapter_config.json
gives 1 'adapters: is a folder of adapters' train --model adapters --data text.txt --out x
gives 1 'adapters: is a folder of adapters' plan --model adapters

# where a run cannot be made is said before data is read
gives 1 'absent: No such file or directory' \
    train --model model --data absent.txt --out absent/run/

# outputs are never overwritten
gives 1 'model' init --arch arch.json --out model
gives 1 'tokenizer' tokenizer --data text.txt --vocab 300 --out tokenizer
mkdir full && : > full/file
gives 1 'full' train --model model --data text.txt --out full
[ "$(ls full)" = file ] || say 'a refused folder was changed'

# a run; the flag comes before the file, the file before the default
printf 'lr: 0.5\nseed: 7\nbatch-size: 2\nseq-len: 32\nschedule: constant\n' > options.yaml
gives 0 '' train --config options.yaml --lr 0.25 --steps 3 --model model --data text.txt --out run
for line in 'lr: 0.25' 'seed: 7' 'batch-size: 2' 'steps: 3' 'schedule: constant'; do
    grep -qx "$line" run/run.yaml || say "run.yaml has no '$line'"
done
grep -q '^step 1/3 ' "$work/out" && grep -q '^step 3/3 ' "$work/out" || say 'no first or last line'
grep -q '^memory' "$work/out" || say 'no memory table'
[ -s run/model/config.json ] || say 'no model folder'
grep -q $'\033' "$work/out" && say 'escape sequences in a plain file'

# its run.yaml is a config file; --json is one object a line and nothing else
gives 0 '' train --config run/run.yaml --out again --export no --json
[ "$(grep -c '^{"step": [123], .*}$' "$work/out")" -eq 3 ] || say 'no three JSON lines'
tail -n 1 "$work/out" | grep -q '^{"ended": "done", "step": 3, "steps": 3, "done_steps": 3, .*}$' ||
    say 'the last JSON line does not say that the run is done'
[ "$(wc -l < "$work/out")" -eq 4 ] || say 'more than JSON on stdout'
gives 0 '' train --config again/run.yaml --json
grep -q '^{"ended": "done", "done_steps": 0, .*}$' "$work/out" || say 'nothing to do is no end'
[ "$(wc -l < "$work/out")" -eq 1 ] || say 'more than the end of what was done before'
[ ! -e again/model ] || say '--export no exported'

# the same command continues; other settings are refused by name
gives 0 '' train --config run/run.yaml
gives 0 '' train --resume run
gives 1 'seed' train --config run/run.yaml --seed 8

# the rest of the commands on what is there
gives 0 '' export run --out exported
cmp -s exported/model.safetensors run/model/model.safetensors || say 'export differs from the run'
gives 0 '' verify run
gives 0 '' inspect run
gives 0 '' inspect model --json
gives 0 '' preview --data text.txt --model model --json --samples 2
grep -q '"input_ids"' "$work/out" || say 'no input_ids in the preview'
printf '{"text": "Line %s"}\n' 1 2 3 4 5 6 > six.jsonl
gives 0 '' preview --data six.jsonl --model model --json
[ "$(wc -l < "$work/out")" = 4 ] || say 'the preview does not show the four samples that help names'
printf '{"premise": "A", "hypothesis": "B", "label": "entailment"}\n' > rte.jsonl
gives 1 'it has "premise", "hypothesis", "label"' preview --data rte.jsonl --model model
gives 0 '' preview --data rte.jsonl --model model --task rte
grep -q '\[.* </s>\]$' "$work/out" || say 'no answer is learnt in the preview of a task'
gives 0 '' generate --model run/model --prompt 'Line 3' --max-tokens 4
gives 0 '' generate --model run/model --prompt 'Line 3' --max-tokens 4 --template chatml
gives 1 'no chat template; give --template' generate --model run/model --prompt 'Line 3' --chat
gives 1 'nothing' generate --model run/model --prompt 'Line 3' --template nothing
printf 'Line 3\n\nLine 4\n' | "$tailrace" generate --model run/model --chat --template chatml \
    --max-tokens 4 > "$work/out" 2>&1 || say 'no conversation'
gives 0 '' eval --model run/model --data text.txt --seq-len 32 --json
grep -q '"loss": [0-9]' "$work/out" || say 'no loss'
gives 0 '' eval --model run --data six.jsonl --json
grep -q '"samples": 6,' "$work/out" || say 'a loss of no samples'

# a run has the tokenizer that it was trained with, also where its model has none
mkdir bare
cp model/config.json model/*.safetensors bare
gives 0 '' train --model bare --tokenizer model --data text.txt --out lent --steps 1 --seq-len 32
gives 0 '' generate --model lent --prompt 'Line 3' --max-tokens 4
gives 0 '' export lent --gguf lent.gguf
gives 0 '' generate --model lent/model --prompt 'Line 3' --max-tokens 4
cmp -s model/tokenizer.json lent/model/tokenizer.json || say 'another tokenizer was exported'
gives 1 'no tokenizer.json' generate --model bare --prompt 'Line 3'

# the same command goes on where the model folder has gone, in whatever way it was said
cp -r model gone
gives 0 '' train --model gone/ --data text.txt --out after --steps 1 --seq-len 32
rm -r gone
gives 0 '' train --model gone/ --data text.txt --out after --steps 2 --seq-len 32
gives 0 '' train --model gone --data text.txt --out after --steps 3 --seq-len 32

# a tokenizer that is only there as sentencepiece's file serves like any other
mkdir piece
cp "${0%/*}/../text/bpe.model" piece/tokenizer.model
sed 's/"vocab_size": 320/"vocab_size": 799/' arch.json > piece.json
gives 1 'piece: the tokenizer has 800 tokens, the model 799' \
    init --arch piece.json --tokenizer piece --out small
[ ! -e small ] || say 'a refused init left its folder'
sed 's/"vocab_size": 320/"vocab_size": 800/' arch.json > piece.json
gives 0 '' init --arch piece.json --tokenizer piece --out small
gives 0 '' generate --model small --prompt 'Line 3' --max-tokens 4
gives 0 '' eval --model small --data text.txt --seq-len 32

# counts have bounds, and what would do nothing is refused
for command in 'eval --data text.txt' 'generate --prompt x'; do
    # shellcheck disable=SC2086 # two or three words
    gives 1 '--threads: 4294967297 is more than 1024' ${command%% *} --model model ${command#* } \
        --threads 4294967297
done
gives 1 'lower --device-memory' eval --data text.txt --model model --seq-len 32 --device cpu \
    --device-memory 100%
gives 1 '--threads' bench --quick --threads 9223372036854775807 --out figures.json
gives 1 'exists and holds no figures' bench --quick --out text.txt
gives 1 'cannot create' bench --quick --out nowhere/figures.json
gives 1 'nowhere: No such file' bench --quick --store "$work:$work/nowhere" --out figures.json

# a variable of the environment that says nothing is told before anything is done
export TAILRACE_IO=nonsense
for command in 'train --data text.txt --out odd' 'eval --data text.txt' 'generate --prompt x'; do
    # shellcheck disable=SC2086 # several words
    gives 1 'tailrace: TAILRACE_IO: "nonsense" is neither' $command --model model
    [ ! -s "$work/out" ] || say "begins although TAILRACE_IO is wrong: $command"
done
gives 1 'tailrace: TAILRACE_IO: "nonsense" is neither' bench --quick --out figures.json
[ ! -s "$work/out" ] || say 'a bench begins although TAILRACE_IO is wrong'
unset TAILRACE_IO
gives 1 '--samples: is for' eval --model model --data text.txt --samples 3
gives 1 '--max-tokens: is for' eval --model model --data text.txt --max-tokens 3

# prompts: a mark of UTF-8 and blanks before an object, ids that the model has not, long ones
printf '\xef\xbb\xbf{"prompt": "Line 3"}\n  {"prompt": "Line 4"}\n' > marked.jsonl
gives 0 '' generate --model lent --prompts marked.jsonl --max-tokens 2
[ "$(grep -c '^{"prompt":"Line [34]",' "$work/out")" -eq 2 ] ||
    say 'prompts are not read as objects'
gives 1 'past the model' generate --model model --tokenizer piece --prompt 'Line the end of that' \
    --max-tokens 4
gives 2 '--top-p: 0 is too small' generate --model lent --prompt x --top-p 0
sed 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 4096/' arch.json > far.json
gives 0 '' init --arch far.json --tokenizer model --out far
for ((i = 0; i < 600; i++)); do printf 'q%d ' $i; done > far.txt
gives 0 '' generate --model far --prompts far.txt --max-tokens 2

# samples that are cut are told, and then bits are no bits a byte
for ((i = 0; i < 20; i++)); do
    printf '{"text": "a text that is longer than a row"}\n'
done > cut.jsonl
gives 0 '' eval --model lent --data cut.jsonl --seq-len 8
grep -q '^cut  *20 samples' "$work/out" || say 'nothing is said of samples that were cut'
! grep -q '^bits a byte' "$work/out" || say 'bits a byte of samples that were cut'

# a question that is too long for a row is a miss, and the others are asked
printf '{"prompt": "Line 3", "completion": "x"}\n{"prompt": "%s", "completion": "x"}\n' \
    'a prompt that is longer than a row is, by far' > long.jsonl
gives 0 '' eval --model lent --data long.jsonl --seq-len 16 --exact-match
grep -q 'of 2)' "$work/out" || say 'a long question is not counted'

# the smallest budget that a plan names would do, also where one group is all there is
group=(plan --arch arch.json --device cpu --threads 1 --seq-len 32 --clip-norm 1
    --clip-method group:4)
gives 0 '' "${group[@]}"
least=$(sed -n 's/^smallest *--device-memory \([0-9]*\).*/\1/p' "$work/out")
gives 0 '' "${group[@]}" --device-memory "${least:-none}"

# a run brings the template that it was trained with
printf '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' \
    > talk.jsonl
gives 0 '' train --model model --data talk.jsonl --out talk --steps 1 --seq-len 64 --template chatml
gives 0 '' eval --model talk --data talk.jsonl --seq-len 64 --exact-match
gives 0 '' generate --model talk --prompt a --chat --max-tokens 4
gives 1 'no chat template' eval --model talk/model --data talk.jsonl --seq-len 64
gives 0 '' eval --model talk/model --data talk.jsonl --seq-len 64 --template chatml --exact-match

# by force the run goes on all the same, but not with what its store cannot hold
gives 0 '' train --config run/run.yaml --seed 8 --steps 4 --force
grep -q 'other settings than before (seed)' "$work/out" || say 'force says nothing'
gives 1 'optimizer' train --config run/run.yaml --seed 8 --optimizer adamw --force

# a name that is built in stays one where a folder is called so, a file stays that file
mkdir chatml chat
printf '{%% for m in messages %%}{{ m.content }} {%% endfor %%}' > chat/own.jinja
cp talk.jsonl chat/chatml
gives 0 '' train --model model --data talk.jsonl --out named --steps 1 --seq-len 64 \
    --template chatml
grep -qx 'template: "chatml"' named/run.yaml || say 'a folder has taken the place of a template'
gives 0 '' train --resume named --steps 2
gives 0 '' generate --model named --prompt a --chat --max-tokens 4
cd chat || exit 1
gives 0 '' train --resume ../named --steps 3
gives 0 '' train --model ../model --data ../talk.jsonl --out ../filed --steps 1 --seq-len 64 \
    --template own.jinja
cd ..
gives 0 '' train --resume filed --steps 2

# what cannot be written is told, and leaves nothing
"$tailrace" plan --arch arch.json > /dev/full 2> "$work/err"
code=$?
[ $code -eq 1 ] && grep -q 'standard output: cannot write' "$work/err" ||
    say "exit $code where the output cannot be written"
closed=$(mktemp -d -p /dev/shm 2> /dev/null || mktemp -d) # of memory: takes a write of any length
gives 0 '' train --model model --data text.txt --out "$closed/run" --steps 3 --seq-len 32
"$tailrace" train --model model --data text.txt --out "$closed/run" --steps 6 --seq-len 32 \
    <&- >&- 2>&-
gives 0 '' verify "$closed/run"
gives 0 '' inspect "$closed/run"
grep -q '^steps_done: 6' "$work/out" || say 'no six steps without a terminal'
rm -rf "$closed"
(ulimit -f 40 && exec "$tailrace" train --model model --data text.txt --out limited --steps 1) \
    > "$work/out" 2> "$work/err"
code=$?
[ $code -eq 1 ] && grep -q 'File too large' "$work/err" || say "exit $code at a limit of file sizes"
[ ! -e limited ] || say 'a limit of file sizes leaves a run'

# an interruption ends cleanly with 130, and the run continues
"$tailrace" train --model model --data text.txt --out long --steps 100000 --seq-len 32 --lr 0.01 \
    --json > long.out 2> /dev/null &
pid=$!
for ((i = 0; i < 100; i++)); do
    grep -q '^{"step": ' long.out && break
    sleep 0.1
done
gives 0 '' inspect long
grep -q '^resume: is refused: .* in use by another process' "$work/out" ||
    say 'a run that trains is not told of'
gives 0 '' inspect long --json
grep -q '"steps": 100000' "$work/out" || say 'no steps of a run that trains'
kill -TERM $pid
wait $pid
code=$?
[ $code -eq 130 ] || say "exit $code after an interruption"
tail -n 1 long.out | grep -q '^{"ended": "interrupted", "step": [0-9]*, "steps": 100000, ' ||
    say 'the last JSON line does not say that the run was interrupted'
gives 0 '' verify long
exit $failed
