#!/bin/sh
# Fetch a release of Open Images: image index, box annotations, classes, and on request labels and masks.
#
#   sh get_dataset.sh --release v7 --split validation
#
#   --release v2|v3|v4|v5|v6|v7      the release (default: v7)
#   --split train|validation|test    the split (default: train); one folder can hold several
#   --directory DIR                  the folder to write to (default: data), for one release
#   --image_labels                   also fetch the verified image-level labels
#   --masks                          also fetch the instance masks (v5 and later)
#   --help                           print this text
#
# Files it makes, in the same layout for every release:
#
#   DIR/RELEASE                           the release, e.g. v7
#   DIR/classes/class-descriptions.csv    MID and name of each class
#   DIR/classes/classes-trainable.txt     the classes with boxes to train on, one MID a line
#   DIR/classes/hierarchy.json            the class hierarchy (v4 and later)
#   DIR/SPLIT/images.csv                  the image index
#   DIR/SPLIT/boxes.csv                   the box annotations
#   DIR/SPLIT/image-labels.csv            with --image_labels
#   DIR/classes/classes-segmentable.txt   with --masks: the classes that have masks, one MID a line
#   DIR/SPLIT/masks.csv                   with --masks: the box of each mask
#   DIR/SPLIT/masks/SPLIT-masks-0.zip     with --masks: the masks, in 16 zips (0 to f) that stay packed
#   DIR/tarballs/                         v2 and v3: the tarballs as published, with all splits;
#                                         delete them when you need no other split
#
# The train split of v7 is 2.9 GB, its validation split 40 MB; v2 and v3 download 1.1 GB for any split. The
# masks are 5.3 GB for train, 61 MB for validation and 180 MB for test.
# If it is interrupted, run the same command again: it resumes within the file it was fetching. A file that
# exists is complete and is not fetched again. Use a folder from one machine or container at a time: its lock
# is a process number, which means nothing elsewhere.
# Needs curl, GNU wget or python3. OPEN_IMAGES_URL replaces https://storage.googleapis.com/openimages.
# HTTP_PROXY, HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are honoured.
# The last line of stdout counts the rows. Exit codes: 0 done, 1 failed, 2 wrong flags, 130 interrupted.
set -u

STALL_SECONDS=60 # without a byte, until a connection is given up
TRIES=20         # for one file; each resumes where the last one stopped

say() { printf 'get_dataset.sh: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}
usage() {
    say "$*; see sh get_dataset.sh --help"
    exit 2
}

# --- the command line ------------------------------------------------------------------------------

release=v7 split=train directory=data image_labels="" masks=""
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --image_labels) image_labels=yes ;;
    --masks) masks=yes ;;
    --release | --split | --directory)
        if [ -z "${2:-}" ]; then usage "$1 needs a value"; fi
        case $1 in --release) release=$2 ;; --split) split=$2 ;; *) directory=$2 ;; esac
        shift
        ;;
    *) usage "unknown argument $1" ;;
    esac
    shift
done
case $release in v[2-7]) ;; *) usage "--release $release: v2, v3, v4, v5, v6 or v7 was expected" ;; esac
case $split in train | validation | test) ;; *) usage "--split $split: train, validation or test was expected" ;; esac
case $masks/$release in yes/v[2-4]) usage "--masks: $release has no masks; --release v5, v6 or v7 was expected" ;; esac
base=${OPEN_IMAGES_URL:-https://storage.googleapis.com/openimages}
base=${base%/}

# --- one run at a time, and a clean end --------------------------------------------------------------

lock=$directory/.get_dataset.lock
child=
meter=
locked=

clean_up() {
    [ -z "$child" ] || kill "$child" 2>/dev/null
    [ -z "$meter" ] || kill -KILL "$meter" 2>/dev/null
    [ -z "$locked" ] || rm -rf "$lock"
}
trap clean_up EXIT
trap 'say "interrupted; run the same command again to resume"; exit 130' INT TERM HUP

take_lock() {
    if ! mkdir "$lock" 2>/dev/null; then
        [ -d "$lock" ] || fail "$directory: cannot write into this folder"
        [ -s "$lock/pid" ] || sleep 2 # another run may be about to write it
        owner=$(cat "$lock/pid" 2>/dev/null)
        # Our own number is that of a killed run: in a container every run has the same number.
        [ -n "$owner" ] && [ "$owner" != $$ ] && kill -0 "$owner" 2>/dev/null &&
            fail "$directory: another run (process $owner) is using it; if that process is something else, remove $lock"
        # The owner was killed. Of several runs that find its lock, the one that makes this folder takes it over;
        # the others cannot make it, or see that the lock has a new owner.
        mkdir "$lock/taken_over" 2>/dev/null ||
            fail "$directory: another run is starting in it; if there is none, remove $lock"
        if [ "$owner" != "$(cat "$lock/pid" 2>/dev/null)" ]; then
            rmdir "$lock/taken_over"
            fail "$directory: another run is using it"
        fi
    else
        locked=yes
    fi
    if ! echo $$ >"$lock/pid"; then
        rmdir "$lock/taken_over" 2>/dev/null
        fail "$directory: cannot write into this folder (disk full?)"
    fi
    rmdir "$lock/taken_over" 2>/dev/null
    # A run that ends before the copies are made leaves the lock, so that the next run makes them.
    [ -n "$locked" ] || renew_parts
    locked=yes
}

# The curl or wget of a killed run may still be writing. Copy the partial files, so that it writes to deleted ones.
renew_parts() {
    for part in "$directory"/*/*.part "$directory"/*/masks/*.part; do
        if [ ! -s "$part" ] || [ ! -s "$part.head" ]; then continue; fi # nothing to resume
        watched cp "$part" "$part.copy" && mv "$part.copy" "$part" && continue
        rm -f "$part.copy"
        fail "$part: a killed run may still be writing it, and it cannot be copied (disk full?); free some space, or remove it"
    done
}

watched() { # watched COMMAND...: run it so that an interruption does not wait for its end
    "$@" &
    child=$!
    wait "$child"
    code=$?
    child=
    return $code
}

# --- one file over HTTP ------------------------------------------------------------------------------

if command -v curl >/dev/null 2>&1; then
    tool=curl
elif wget --version 2>/dev/null | grep -q 'GNU Wget'; then
    tool=wget
elif command -v python3 >/dev/null 2>&1; then
    tool=python
else
    fail "curl, GNU wget or python3 is needed, and none of them was found"
fi

# wget reads only the lower-case names of the proxy variables, curl only the lower-case http_proxy.
export "http_proxy=${http_proxy-${HTTP_PROXY-}}" "https_proxy=${https_proxy-${HTTPS_PROXY-}}"
export "no_proxy=${no_proxy-${NO_PROXY-}}"
bundle=${REQUESTS_CA_BUNDLE:-}
trust=
if [ -d "$bundle" ]; then
    export "SSL_CERT_DIR=$bundle"
    case $tool in curl) trust=--capath ;; wget) trust=--ca-directory ;; esac
elif [ -e "$bundle" ]; then
    export "SSL_CERT_FILE=$bundle"
    case $tool in curl) trust=--cacert ;; wget) trust=--ca-certificate ;; esac
elif [ -n "$bundle" ]; then
    fail "$bundle: no such file; REQUESTS_CA_BUNDLE must name a certificate file or folder"
fi

size_of() { if [ -e "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

# Fetch URL $1 to file $2: append to it if the server still has the version with tag $3, else start over.
# The response headers go to $4. Exit code 0: the body is complete, as far as the tool can tell.
# Each function runs in a subshell that becomes the tool (exec), so that the tool itself can be killed.
with_curl() {
    if [ -s "$2" ]; then set -- "$@" --continue-at - --header "If-Range: $3"; fi
    url=$1 to=$2 head=$4
    shift 4
    exec curl --fail --location --silent --show-error --connect-timeout "$STALL_SECONDS" --speed-limit 1 \
        --speed-time "$STALL_SECONDS" --dump-header "$head" --output "$to" ${trust:+"$trust" "$bundle"} \
        --suppress-connect-headers "$@" "$url" 2>"$head.error"
}
with_wget() {
    if [ -s "$2" ]; then set -- "$@" --continue "--header=If-Range: $3"; fi
    url=$1 to=$2 head=$4
    shift 4
    exec wget --no-verbose --server-response --tries=1 --timeout="$STALL_SECONDS" --output-document="$to" \
        ${trust:+"$trust" "$bundle"} "$@" "$url" 2>"$head"
}
with_python() {
    exec python3 - "$1" "$2" "$3" "$4" "$STALL_SECONDS" 2>"$4.error" <<'PYTHON'
import os, sys, urllib.error, urllib.request
url, to, tag, head, seconds = sys.argv[1:]
have = os.path.getsize(to) if os.path.exists(to) else 0
request = urllib.request.Request(url, headers={"Range": f"bytes={have}-", "If-Range": tag} if have else {})
try:
    answer = urllib.request.urlopen(request, timeout=float(seconds))
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    sys.exit(str(error))
with open(head, "w") as stream:
    stream.write(f"HTTP/1.1 {answer.status}\n{answer.headers}")
if answer.status not in (200, 206):
    sys.exit(1)
try:
    with open(to, "ab" if answer.status == 206 else "wb") as stream:
        while data := answer.read1(1 << 16):  # read1 does not wait for a full block: a kill loses little
            stream.write(data)
            stream.flush()
except OSError as error:
    sys.exit(str(error))
PYTHON
}

# The status or the value of a header of the last response in a file of headers (redirects come before it).
status_in() { tr -d '\r' 2>/dev/null <"$1" | sed -n 's/^ *HTTP\/[0-9.]* \([0-9]*\).*/\1/p' | tail -n 1; }
header_in() {
    tr -d '\r' 2>/dev/null <"$1" | awk -v name="$2" '
        /^ *HTTP\// { value = "" }
        { line = $0; sub(/^ */, "", line); colon = index(line, ":") }
        colon && tolower(substr(line, 1, colon - 1)) == name { value = substr(line, colon + 1); sub(/^ */, "", value) }
        END { print value }'
}

# The first message of the tool itself; wget indents the server's lines among its own.
why_in() { cat "$@" 2>/dev/null | sed -n 's/^\([^ ].*[^:]\):\{0,1\}$/\1/p' | head -n 1; }

# The version that a partial file belongs to: a strong ETag, or Last-Modified; empty if there is neither.
tag_in() {
    tag=$(header_in "$1" etag)
    case $tag in '' | W/*) tag=$(header_in "$1" last-modified) ;; esac
    printf '%s' "$tag"
}

# Renew a line on the terminal every second: the share of file $1 that exists, and how long the rest will take. The
# headers in $2 tell its size.
show_progress() {
    first=$(size_of "$1") seconds=0
    while sleep 1 && kill -0 $$ 2>/dev/null; do
        seconds=$((seconds + 1))
        # Of a part that is resumed the headers tell only the length of the rest.
        size=$(header_in "$2" content-length)
        case $2 in *.more) size=$((first + ${size:-0})) ;; esac
        awk -v have="$(size_of "$1")" -v first="$first" -v size="${size:-0}" -v seconds="$seconds" 'BEGIN {
            rate = (have - first) / seconds
            text = sprintf("%.1f MB, %.1f MB/s", have / 1e6, rate / 1e6)
            if (size > 0) text = sprintf("%d %% of %.1f MB, %.1f MB/s", 100 * have / size, size / 1e6, rate / 1e6)
            if (size > 0 && rate > 0) text = text sprintf(", %d:%02d left", (size - have) / rate / 60, (size - have) / rate % 60)
            printf "\r  %-60s\r", text
        }' >&2
    done
}

fetch() { # fetch PATH TO: download the release's file PATH to TO
    [ -e "$2" ] && return
    url=$base/$1 part=$2.part
    mkdir -p "${2%/*}" || fail "$2: cannot make its folder"
    say "fetching $url"
    try=0
    while :; do
        try=$((try + 1))
        before=$(size_of "$part")
        tag=$(tag_in "$part.head")
        if [ "$before" -eq 0 ] || [ -z "$tag" ]; then
            rm -f "$part" "$part.head"
            before=0
            answer=$part.head
        else
            answer=$part.more
        fi
        if [ -t 2 ]; then
            show_progress "$part" "$answer" >/dev/null &
            meter=$!
        fi
        watched "with_$tool" "$url" "$part" "$tag" "$answer"
        code=$?
        if [ -n "$meter" ]; then
            kill -KILL "$meter" # another signal would be lost while it starts
            wait "$meter" 2>/dev/null
            meter=
            printf '%62s\r' '' >&2
        fi
        status=$(status_in "$answer")
        if [ "$before" -gt 0 ] && { [ "$status" = 200 ] || [ "$status" = 416 ]; }; then
            # The server knows no ranges, or the file has changed: the partial file is useless.
            say "$url cannot be resumed, starting over"
            rm -f "$part" "$part.head" "$part.more"
            [ "$try" -lt "$TRIES" ] && continue
        fi
        expected=$(header_in "$part.head" content-length)
        have=$(size_of "$part")
        [ "$code" -eq 0 ] && [ "$have" = "${expected:-$have}" ] && [ "$have" -gt 0 ] && break
        case $status in [45]*)
            [ "$have" -eq 0 ] && rm -f "$part" "$part.head" "$part.head.error"
            fail "$url: the server answered $status"
            ;;
        esac
        # Try again after a connection that brought some bytes, not after one that brought none.
        [ "$have" -gt "$before" ] && [ "$try" -lt "$TRIES" ] && writable "$part" && continue
        why=$(why_in "$answer.error" "$answer")
        [ "$have" -gt 0 ] || rm -f "$part" "$part.head"
        rm -f "$part".*.error
        writable "$part" || fail "$2: cannot be written (disk full?)"
        [ "$have" -eq 0 ] || fail "$url: connection lost after $have of ${expected:-?} bytes; run the same command again to resume"
        fail "$url: no data received${why:+ ($why)}"
    done
    mv "$part" "$2" || fail "$2: cannot be written"
    rm -f "$part".*
}

writable() { # writable FILE: is there room on its disk?
    head -c 65536 /dev/zero >"$1.room" 2>/dev/null
    room=$?
    rm -f "$1.room"
    return $room
}

extract() { exec tar -xzOf "$1" "$2" >"$3" 2>/dev/null; }

unpack() { # unpack TARBALL MEMBER TO: extract one file from a tarball of the release
    [ -e "$3" ] && return
    tarball=$directory/tarballs/$1
    fetch "$folder/$1" "$tarball"
    mkdir -p "${3%/*}" || fail "$3: cannot make its folder"
    for member in "$folder/$2" "./$folder/$2"; do
        watched extract "$tarball" "$member" "$3.part" && [ -s "$3.part" ] && mv "$3.part" "$3" && return
        [ ! -s "$3.part" ] || break # the right member, cut short
    done
    writable "$3" # checked before the removal frees space
    room=$?
    rm -f "$3.part"
    [ "$room" -eq 0 ] || fail "$3: cannot be written (disk full?)"
    if tar -tzf "$tarball" >/dev/null 2>&1; then
        fail "$tarball: no $folder/$2 in it, expected in a $release tarball"
    fi
    rm -f "$tarball"
    fail "$base/$folder/$1: not a gzipped tarball"
}

# --- the files of each release -----------------------------------------------------------------------

get_tarballs() { # v2, v3
    unpack "classes_$folder.tar.gz" class-descriptions.csv "$directory/classes/class-descriptions.csv"
    unpack "classes_$folder.tar.gz" classes-bbox-trainable.txt "$directory/classes/classes-trainable.txt"
    unpack "annotations_human_bbox_$folder.tar.gz" "$split/annotations-human-bbox.csv" "$directory/$split/boxes.csv"
    if [ -n "$image_labels" ]; then
        unpack "annotations_human_$folder.tar.gz" "$split/annotations-human.csv" "$directory/$split/image-labels.csv"
    fi
    unpack "images_$folder.tar.gz" "$split/images.csv" "$directory/$split/images.csv"
}

get_files() { # v4 and later: a release publishes only the files that changed since the one before
    case $release in
    v4) descriptions=2018_04/class-descriptions-boxable.csv ;;
    v7) descriptions=v7/oidv7-class-descriptions-boxable.csv ;;
    *) descriptions=v5/class-descriptions-boxable.csv ;;
    esac
    case $release/$split in
    v6/train | v7/train) boxes=v6/oidv6-train-annotations-bbox.csv ;;
    v4/* | v5/train) boxes=2018_04/$split/$split-annotations-bbox.csv ;;
    *) boxes=v5/$split-annotations-bbox.csv ;;
    esac
    case $split in train) index=train-images-boxable-with-rotation.csv ;; *) index=$split-images-with-rotation.csv ;; esac
    fetch "$descriptions" "$directory/classes/class-descriptions.csv"
    fetch 2018_04/bbox_labels_600_hierarchy.json "$directory/classes/hierarchy.json"
    list_classes "$directory/classes/class-descriptions.csv" "$directory/classes/classes-trainable.txt"
    fetch "$boxes" "$directory/$split/boxes.csv"
    if [ -n "$image_labels" ]; then
        fetch "v5/$split-annotations-human-imagelabels-boxable.csv" "$directory/$split/image-labels.csv"
    fi
    fetch "2018_04/$split/$index" "$directory/$split/images.csv"
    if [ -n "$masks" ]; then
        fetch v5/classes-segmentation.txt "$directory/classes/classes-segmentable.txt"
        fetch "v5/$split-annotations-object-segmentation.csv" "$directory/$split/masks.csv"
        for digit in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do # the first of the image's id
            fetch "v5/$split-masks/$split-masks-$digit.zip" "$directory/$split/masks/$split-masks-$digit.zip"
        done
    fi
}

list_classes() { # the boxable classes, in file order: from v4 on no list of trainable classes is published
    [ -e "$2" ] && return
    awk -F, '{ sub(/\r$/, "") } NR == 1 { sub(/^\357\273\277/, "") } NR == 1 && $1 == "LabelName" { next } NF { print $1 }' \
        "$1" >"$2.part" && [ -s "$2.part" ] && mv "$2.part" "$2" && return
    rm -f "$2.part"
    fail "$2: cannot be made from $1: no classes in it, or disk full"
}

report() { # report NAME FILE HEADER_LINES: print a line and add a count to the last line
    [ -e "$2" ] || return
    rows=$(($(wc -l <"$2") - $3))
    printf '%-45s %15s bytes %12s rows\n' "$2" "$(size_of "$2")" "$rows"
    counts="$counts $1=$rows"
}

mkdir -p "$directory" 2>/dev/null || fail "$directory: cannot make this folder"
take_lock
if [ -e "$directory/RELEASE" ]; then
    there=$(cat "$directory/RELEASE")
    [ "$there" = "$release" ] || fail "$directory: holds release $there, not $release; give each release its own --directory"
else
    if ! { echo "$release" >"$directory/RELEASE.part" && mv "$directory/RELEASE.part" "$directory/RELEASE"; }; then
        fail "$directory/RELEASE: cannot be written (disk full?)"
    fi
fi
case $release in
v2) folder=2017_07 && get_tarballs ;;
v3) folder=2017_11 && get_tarballs ;;
*) get_files ;;
esac

counts=
descriptions_header=0
head -n 1 "$directory/classes/class-descriptions.csv" | grep -q '^LabelName,' && descriptions_header=1
report descriptions "$directory/classes/class-descriptions.csv" "$descriptions_header"
report trainable "$directory/classes/classes-trainable.txt" 0
report boxes "$directory/$split/boxes.csv" 1
report image_labels "$directory/$split/image-labels.csv" 1
report images "$directory/$split/images.csv" 1
report segmentable "$directory/classes/classes-segmentable.txt" 0
report masks "$directory/$split/masks.csv" 1
echo "${counts# }"
