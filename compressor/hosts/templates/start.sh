# Runs on the other machine: makes a folder, runs Python in it, and removes it, however that ends.
# It is given: the number of bytes of Python's code, which are next on standard input; what says
# what a Python lacks; the Pythons to try.
bytes=$1 probe=$2 home=$PWD
shift 2
trap "" PIPE

fail() {
    printf "compressor: {\"failure\": [\"%s\", \"%s\"]}\n" "$1" "$(printf %s "$2" | tr -d "\"\\\\")"
    exit 1
}

folder=
clean() { [ -z "$folder" ] || { cd /; rm -rf "$folder"; }; folder=; }
trap clean EXIT
trap "exit 129" HUP
trap "exit 130" INT
trap "exit 143" TERM
umask 077
folder=$(mktemp -d "${TMPDIR:-/tmp}/compressor-XXXXXXXX" 2>/dev/null) && cd "$folder" ||
    fail folder "${TMPDIR:-/tmp}"
export TMPDIR="$folder" # what libraries leave among temporary files goes with it

found="" seen=""
for python in "$@"; do
    case $python in
    "~/"*) python=$HOME/${python#??} ;;
    /*) ;;
    */*) python=$home/$python ;;
    esac
    if ! command -v "$python" >/dev/null 2>&1; then
        seen="$seen; $python is not there"
    elif ! lacks=$("$python" -c "$probe" 2>/dev/null </dev/null); then
        seen="$seen; $python does not run"
    elif [ -n "$lacks" ]; then
        seen="$seen; $python $lacks"
    else
        found=$python
        break
    fi
done
[ -n "$found" ] || fail python "${seen#; }"

"$found" -c "import sys; exec(sys.stdin.buffer.read($bytes))"
status=$?
clean
[ $status -eq 0 ] || fail ended $status
