#!/bin/sh
# Make a training set from Open Images: all seven steps, in order.
#
#   SPLIT=validation CLASSES="Cat,Dog" MAX_IMAGES=200 sh make_dataset.sh
#
# If it is interrupted, run the same command again: each step resumes. If a step fails, the run ends and names
# it. Settings, as environment variables:
#
#   RELEASE       v2 to v7                                                 (v7)
#   SPLIT         train, validation or test, or several of them            (train)
#   CLASSES       names or MIDs to train on, comma-separated               (all trainable classes)
#   MAX_IMAGES    at most this many images of each split                   (all)
#   MASKS         1: with the instance masks (v5 and later)                (without)
#   MAX_SIDE      longer side of the images in the records, in pixels      (256)
#   NUM_SHARDS    number of record files                                   (10)
#   DATA          folder of the release                                    (data)
#   OUT           folder of the results                                    (dataset)
#   MIRROR_URL    another mirror of the images                             (the official one)
#   PYTHON        the Python to use                                        (.venv/bin/python, else python3)
#
# Further flags for a step, as on its own command line (split at blanks; {split} stands for the split):
#
#   GET_FLAGS TRANSLATE_FLAGS METADATA_FLAGS DOWNLOAD_FLAGS PROCESS_FLAGS LABEL_MAP_FLAGS RECORD_FLAGS
#
# Results, with SPLIT=validation; with SPLIT="train validation", dataset/train/ holds the same beside it:
#
#   dataset/classes-trainable.txt                  the classes to train on, one MID a line
#   dataset/classes-translated.json                their names
#   dataset/label_map.pbtxt                        their ids, for TensorFlow
#   dataset/validation/points.json                 boxes by image, as annotated
#   dataset/validation/images.json                 the images to download
#   dataset/validation/photos/                     the downloaded images
#   dataset/validation/resized/                    the verified, resized images
#   dataset/validation/points-resized.json         boxes of the images in resized/
#   dataset/validation/records/validation.tfrecord-00000-of-00010
set -eu
cd "$(dirname "$0")"

: "${RELEASE:=v7}" "${SPLIT:=train}" "${CLASSES:=}" "${MAX_IMAGES:=}" "${MASKS:=}" "${MAX_SIDE:=256}"
: "${NUM_SHARDS:=10}" "${DATA:=data}" "${OUT:=dataset}"
: "${MIRROR_URL:=}" "${GET_FLAGS:=}" "${TRANSLATE_FLAGS:=}" "${METADATA_FLAGS:=}" "${DOWNLOAD_FLAGS:=}"
: "${PROCESS_FLAGS:=}" "${LABEL_MAP_FLAGS:=}" "${RECORD_FLAGS:=}"
if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
usage() {
    echo "make_dataset.sh: $*" >&2
    exit 2
}
case $MASKS in '' | 1) ;; *) usage "MASKS=$MASKS: 1 or nothing was expected" ;; esac
splits=0
for split in $SPLIT; do
    case $split in train | validation | test) ;; *) splits=0 && break ;; esac
    splits=$((splits + 1))
done
[ "$splits" -gt 0 ] || usage "SPLIT=$SPLIT: train, validation, test, or several with blanks between was expected"

mkdir -p "$OUT"
exec 9>>"$OUT/.make_dataset.lock" # locked until this shell ends, even if it is killed
"$PYTHON" -c 'import sys
sys.argv[0] = "make_dataset.sh"
import common, fcntl  # on Windows common names WSL
try:
    fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(f"{sys.argv[0]}: {sys.argv[1]}: another run is working in this folder")
except OSError:
    pass  # a file system without locks; each step still refuses a second run' "$OUT" <&9 || exit 1

child=
interrupted() {
    trap '' INT TERM HUP
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
    wait # for the step to save its state
    rm -f "$OUT/.stdout"
    echo "make_dataset.sh: interrupted; run the same command again to resume" >&2
    exit 130
}
trap interrupted INT TERM HUP

step() { # step NUMBER COMMAND...: run it; if it fails, exit with its code
    number=$1 of=
    [ "$splits" -eq 1 ] || of=${split:+ ($split)}
    shift
    echo "== step $number of 7$of: $*" >&2
    "$@" >"$OUT/.stdout" 9>&- & # in the background, so that the trap runs at once
    child=$!
    code=0
    wait "$child" || code=$?
    child=
    cat "$OUT/.stdout"
    [ "$code" -eq 0 ] && return
    rm -f "$OUT/.stdout"
    echo "make_dataset.sh: step $number of 7$of failed with exit code $code" >&2
    exit "$code"
}

for_split() { printf '%s' "$1" | sed "s/{split}/$split/g"; }

descriptions=$DATA/classes/class-descriptions.csv
classes=$OUT/classes-trainable.txt

for split in $SPLIT; do
    set --
    [ -z "$MASKS" ] || set -- --masks

    # shellcheck disable=SC2046
    step 1 sh get_dataset.sh --release "$RELEASE" --split "$split" --directory "$DATA" "$@" $(for_split "$GET_FLAGS")
done

choose=$CLASSES trainable=$DATA/classes/classes-trainable.txt
if [ -z "$CLASSES" ]; then
    cp "$trainable" "$classes.part"
    mv "$classes.part" "$classes"
fi
for split in $SPLIT; do
    set --
    if [ -n "$choose" ]; then
        # Step 3 writes the chosen classes, so it runs before step 2.
        set -- --classes "$choose" --class_description_path "$descriptions" --trainable_classes_output_path "$classes"
    fi
    [ -z "$MASKS" ] || set -- "$@" --masks_input_path "$DATA/$split/masks.csv"
    [ -z "$MAX_IMAGES" ] || set -- "$@" --max_images "$MAX_IMAGES"

    # shellcheck disable=SC2046
    step 3 "$PYTHON" process_metadata.py \
        --annotations_input_path "$DATA/$split/boxes.csv" \
        --image_index_input_path "$DATA/$split/images.csv" \
        --trainable_classes_path "$trainable" \
        --point_output_path "$OUT/$split/points.json" \
        --image_index_output_path "$OUT/$split/images.json" "$@" $(for_split "$METADATA_FLAGS")
    choose='' trainable=$classes # chosen once: further splits take the list
done
split=

# shellcheck disable=SC2086  # flags are split into words
step 2 "$PYTHON" translate_class_descriptions.py \
    --trainable_classes_path "$classes" \
    --class_description_path "$descriptions" \
    --trainable_translated_path "$OUT/classes-translated.json" $TRANSLATE_FLAGS

for split in $SPLIT; do
    set --
    [ -z "$MIRROR_URL" ] || set -- --mirror_url "$MIRROR_URL"

    # shellcheck disable=SC2046
    step 4 "$PYTHON" download_images.py \
        --images_path "$OUT/$split/images.json" \
        --images_output_directory "$OUT/$split/photos" "$@" $(for_split "$DOWNLOAD_FLAGS")

    set --
    [ -z "$MASKS" ] || set -- --masks_directory "$DATA/$split/masks"

    # shellcheck disable=SC2046
    step 5 "$PYTHON" process_images.py \
        --image_directory "$OUT/$split/photos" \
        --image_saving_directory "$OUT/$split/resized" \
        --datapoints_input_path "$OUT/$split/points.json" \
        --datapoints_output_path "$OUT/$split/points-resized.json" \
        --max_side "$MAX_SIDE" "$@" $(for_split "$PROCESS_FLAGS")
done
split=

# shellcheck disable=SC2086
step 6 "$PYTHON" create_label_map.py \
    --trainable_classes_path "$classes" \
    --class_description_path "$descriptions" \
    --label_map_save_path "$OUT/label_map.pbtxt" $LABEL_MAP_FLAGS

for split in $SPLIT; do
    # shellcheck disable=SC2046
    step 7 "$PYTHON" record_maker.py \
        --points_path "$OUT/$split/points-resized.json" \
        --saved_images_directory "$OUT/$split/resized" \
        --trainable_classes_path "$classes" \
        --label_map_path "$OUT/label_map.pbtxt" \
        --record_save_path "$OUT/$split/records/$split.tfrecord" \
        --num_shards "$NUM_SHARDS" $(for_split "$RECORD_FLAGS")
done

rm -f "$OUT/.stdout"
echo "label map: $OUT/label_map.pbtxt"
for split in $SPLIT; do
    echo "records:   $OUT/$split/records/$split.tfrecord-*"
    for word in $(for_split "$RECORD_FLAGS"); do # the files that these flags name
        case ${flag:-}=$word in
        --coco_path=*) echo "COCO file: $word" ;;
        --report_path=*) echo "report:    $word" ;;
        --preview_path=*) echo "preview:   $word" ;;
        esac
        flag=$word
    done
done
