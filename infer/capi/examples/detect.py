"""Scores images with a model, by rdpp.py, which lies beside librdpp.so:

    PYTHONPATH=lib python3 detect.py model.safetensors image.png ...

Prints "score normalised anomalous regions width height file" per image.
"""

import sys

import rdpp


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: detect.py MODEL IMAGE...")
    failed = False
    with rdpp.Detector(sys.argv[1]) as detector:
        for path in sys.argv[2:]:
            try:
                r = detector.detect_file(path)
            except (OSError, rdpp.Error) as e:
                print(f"detect: {path}: {e}", file=sys.stderr)
                failed = True
                continue
            print(f"{r.score:.17g} {r.normalised:.17g} {int(r.anomalous)} {len(r.regions)} {r.width} {r.height} {path}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except rdpp.Error as e:
        sys.exit(f"detect: {e}")
