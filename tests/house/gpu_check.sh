#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tools/gpu-check without a GPU: the whole script at tiny sizes on the fake cuda device, with an
# nvidia-smi of its own that tells what it is told. The report must have every row, must say that it
# is a rehearsal, and must be there where something failed or no time was left.
# Usage: gpu_check.sh ROOT BUILD MODULE
set -u
root=$1 build=$(realpath "$2") module=$(realpath "$3")
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work" "$build/gpu-train"' EXIT
failed=0
unset TAILRACE_CUDA_MODULE TAILRACE_DEVICE TR_TEST_DEVICE CUDA_VISIBLE_DEVICES
export TR_FAKE_CUDA=memory=2GiB PATH=$work/bin:$PATH

say() {
    echo "gpu_check.sh: $*"
    failed=1
}

mkdir "$work/bin"
cat > "$work/bin/nvidia-smi" << 'END_OF_SMI'
#!/bin/bash
for word; do
    case $word in
    --query-gpu=name) echo 'Pretended GPU' ;;
    --query-gpu=compute_cap) echo 8.6 ;;
    --query-gpu=memory.total*) echo 2048 ;;
    --query-gpu=memory.used) echo 40 ;;
    --query-gpu=memory.used,*) echo '40, 1755, 690.5' ;;
    --query-gpu=*) echo 1 ;;
    --query-compute-apps=*) echo "/somewhere/tailrace, ${PRETENDED_MIB:-100}" ;;
    esac
done
END_OF_SMI
# compute-sanitizer, too, only says that it was there, and which GPU its program would see.
cat > "$work/bin/compute-sanitizer" << 'END_OF_SANITIZER'
#!/bin/bash
echo "$CUDA_DEVICE_ORDER $CUDA_VISIBLE_DEVICES ${TAILRACE_CUDA_LAZY-} $*" >> "${0%/*}/../sanitized"
END_OF_SANITIZER
chmod +x "$work/bin"/*

# rehearse CODE OPTIONS...: the exit code, and $report.
rehearse() {
    local code=$1 got
    shift
    rm -rf "$work/reports"
    "$root/tools/gpu-check" --no-build --build "$build" --reports "$work/reports" \
        --rehearse "$module" "$@" > "$work/out" 2>&1
    got=$?
    [ $got -eq "$code" ] || { say "exit $got, not $code: $*" && cat "$work/out"; }
    report=$(echo "$work"/reports/rehearsal-pretended-gpu-*.md)
    [ -s "$report" ] || { say "no report: $*" && cat "$work/out"; }
}

# has PATTERN...: of extended regular expressions, lines that the report must have.
has() {
    local pattern
    for pattern; do
        grep -qE -- "$pattern" "$report" || { say "the report has no '$pattern'" && cat "$report"; }
    done
}

rehearse 0 --big --commit a1b2c3
has 'no figure here was measured on a GPU' \
    '^Commit a1b2c3; driver ' '^Phases done.* device, bench, train, torch, tests, sanitize, big' \
    '^\| test_table \| passed' '^\| test_parity_logits \| passed' '^\| gpu-bench \| passed' \
    '^\| compute-sanitizer racecheck, small sizes \| passed' \
    '^\| compute-sanitizer memcheck, kernelcheck matmul \| passed' \
    '^\| compute-sanitizer synccheck, kernelcheck attention \| passed' \
    '^\| both at once, each, against the slower alone \| [0-9.]+ GB/s \| [0-9.]+ \|' \
    '^\| update sgd, .* \| [0-9.]+ GB/s \| [0-9.]+ \|' '^\| rmsnorm, .* \| [0-9.]+ \|' \
    '^\| attention \| .* \| [0-9.]+ \|' '^\| attention_grad \| .* \| [0-9.]+ \|' \
    '^\| tiny: a step of 128 tokens, 6 of 6 blocks resident.* tokens/s' \
    '^\| tiny: arithmetic of that step / best cuBLAS rate.*at least 0.75' \
    '^\| tiny: device memory, by the driver / the budget \(256 MiB.*\| 100 MiB.*\| 0.391 \|' \
    '^\| tiny: a step of [0-9]+ tokens, [1-5] of 6 blocks resident' \
    '^\| tiny: a step of 128 tokens.* GB written; 1755 MHz at 690 W' \
    '^\| tiny, 3 resident steps: time of matmul_dw 128 x 352 x 128 in 1, [0-9]+ times \| ' \
    '^\| tiny, 3 resident steps: time between ops / in ops \| .*waits above 10 ms: ' \
    '^\| tiny, 2 streaming steps: time between ops / in ops \| ' \
    '^\| tiny: streaming from pinned host memory / resident, tokens/s at [0-9]+ tokens \| [0-9.]+' \
    '^\| (PyTorch on the same GPU, 1.1B \| skipped|tailrace / PyTorch .*device peak)' \
    '^\| tiny: a step of 128 tokens, LOMO.*of 8 blocks.* s predicted, loss [0-9.]+ \|  \| is done'
! grep -q 'FAILED' "$report" || { say 'something failed' && cat "$report"; }
# No phase takes the time of those behind it, but for the last.
grep -qE '^== device, at most 1[34][0-9] s' "$work/out" || say 'the first phase may take all'
grep -qE '^== big, at most [2-5][0-9][0-9] s' "$work/out" || say 'the last phase may not take all'

# More memory than the budget, as the driver sees it, is a failure.
PRETENDED_MIB=300 rehearse 1 --only big
has '^\| tiny: device memory \| FAILED: above the budget'
# A driver that tells nothing has not said that the budget holds.
PRETENDED_MIB=0 rehearse 0 --only big
has '^\| tiny: device memory.*not measured.* - \|'
# What streams has as many rows as a slow link asks for, and none where there is no time for three.
link() {
    "$root/tools/gpu-train" --build "$build" --tiny "$@" step stream > "$work/rows" 2> "$work/out"
    report=$work/rows
}
export TAILRACE_CUDA_MODULE=$module
link --link 0.001 || { say 'a slow link fails' && cat "$work/out"; }
has '^\| tiny: a step of 256 tokens, 6 of 6 blocks resident' \
    '^\| tiny: a step of 256 tokens, [1-5] of 6 blocks resident' \
    '^\| tiny: streaming from pinned host memory .* at 256 tokens \| [0-9.]+ s'
link --link 0.000001 || { say 'no time for a link fails' && cat "$work/out"; }
has '^\| tiny: streaming from host memory \| not run: no time left'
# Where /dev/shm is too small, memory is mounted, if that is allowed.
# shellcheck disable=SC2016 # expanded by the shell inside
small_shm=(unshare --mount bash -c 'mount -t tmpfs -o size=1m tailrace /dev/shm && exec "$@"' sh)
if "${small_shm[@]}" true 2> /dev/null; then
    "${small_shm[@]}" "$root/tools/gpu-train" --build "$build" --tiny step > "$work/rows" \
        2> "$work/out" || { say 'a small /dev/shm fails' && cat "$work/out"; }
    has '^\| tiny: a step of 128 tokens, 6 of 6 blocks resident, store in memory'
    [ -z "$(compgen -G "$build/gpu-train/tailrace-*")" ] || say 'a folder is left'
fi
unset TAILRACE_CUDA_MODULE
# So is a run that fails; what came before it stands.
TR_FAKE_CUDA=memory=2GiB,fail=cudaStreamCreateWithFlags:2 rehearse 1 --only train,torch
has '^\| tiny: a resident step \| FAILED: ' '^\| PyTorch on the same GPU'
# What a test said that failed is in the report.
TR_FAKE_CUDA=memory=2GiB,fail=cublasLtCreate:1 rehearse 1 --only device
has '^\| test_table \| FAILED' '^## What failed' '^### test_table' \
    '^    .*cuBLASLt: it does not start'
# Without time nothing is run, and the report says so.
rehearse 0 --only device,train --seconds 0
has '^\| test_table \| not run: no time left' '^\| train \| not run: no time left' \
    '^\| gpu-bench \| not run: no time left'
! grep -q '^## The device' "$report" || say 'figures of a device that nobody measured'
# Another GPU, by the number that nvidia-smi knows it by; to programs there is no other.
rm "$work/sanitized"
rehearse 0 --only sanitize --device 3
grep -q '^PCI_BUS_ID 3 1 --tool memcheck .*gpu-bench --quick' "$work/sanitized" ||
    { say 'not on GPU 3' && cat "$work/sanitized"; }
grep -q '^PCI_BUS_ID 3 1 --tool memcheck .*kernelcheck --device=cuda:0 --op=' "$work/sanitized" ||
    { say 'not on GPU 3' && cat "$work/sanitized"; }

# What travels to another machine is all there, or the archive is a failure.
if "$root/tools/gpu-check" --build "$build" --pack "$work/packed.tar" 2> "$work/out"; then
    for file in kernels/tailrace-cuda.so tools/tailrace tests/parity/test_parity_train; do
        tar -tf "$work/packed.tar" | grep -q "/$file\$" || say "no $file is packed"
    done
else
    grep -q 'No such file' "$work/out" || { say 'packing fails' && cat "$work/out"; }
fi
! "$root/tools/gpu-check" --build "$work/none" --pack "$work/none.tar" 2> /dev/null ||
    say 'packing nothing is no failure'

# A second report of the day does not replace the first.
cp "$report" "$work/first"
"$root/tools/gpu-check" --no-build --build "$build" --reports "$work/reports" --seconds 0 \
    --only device --rehearse "$module" > /dev/null 2>&1 || say 'a second run of the day failed'
cmp -s "$report" "$work/first" || say 'the first report was replaced'
[ -s "${report%.md}-2.md" ] || say 'there is no second report'

# A build that fails has measured nothing: no report.
printf '#!/bin/bash\nexit 1\n' > "$work/bin/meson"
chmod +x "$work/bin/meson"
! "$root/tools/gpu-check" --build "$work/no-build" --reports "$work/no-reports" \
    --rehearse "$module" > "$work/out" 2>&1 || say 'a build that fails is no failure'
[ ! -e "$work/no-reports" ] || say 'a build that failed left a report'

# A rehearsal has no place among the reports of real GPUs.
! "$root/tools/gpu-check" --no-build --build "$build" --rehearse "$module" > /dev/null 2>&1 ||
    say 'a rehearsal wrote to tests/reports'
exit $failed
