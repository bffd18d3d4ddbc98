# Squares the root that training found. Its folder is in $RUNONCE_INPUT_TRAIN.
#   awk -f check.awk TOLERANCE
BEGIN {
    getline root < (ENVIRON["RUNONCE_INPUT_TRAIN"] "/root.txt")
    printf "{\"square\": %.6f}\n", root * root > (ENVIRON["RUNONCE_OUTPUT"] "/check.json")
    exit (root * root - 2 < ARGV[1] && 2 - root * root < ARGV[1]) ? 0 : 1
}
