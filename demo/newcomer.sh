#!/bin/sh
# A newcomer's path: from a refused connection to the policy that lets it in, each command as a person types it.
#
#   make demo STAY=1 && demo/newcomer.sh
#
# It stops at the first command that does not do what it should. AMBIT is the program, LAB the lab's name.
set -eu

ambit=${AMBIT:-target/release/ambit}
lab=${LAB:-demo}
policy=$(mktemp)
trap 'rm -f "$policy"' EXIT
commands=1 # `make demo STAY=1` was the first.

# Runs a command as it is typed, and shows it; what it says to people and its data go to $said.
run() {
    commands=$((commands + 1))
    printf '\n$ %s\n' "$*"
    said=$("$@" 2>&1) || { printf '%s\n' "$said" >&2; exit 1; }
    printf '%s\n' "$said"
}

# What the last command said has to hold a text.
shows() {
    case $said in
    *"$1"*) ;;
    *) printf 'newcomer: the answer does not show %s\n' "$1" >&2; exit 1 ;;
    esac
}

run "$ambit" map --name "$lab"
shows batch
shows AMB2104
run "$ambit" why last --name "$lab"
shows AMB2104
shows shop/batch
run "$ambit" policy suggest -n shop --allow last --write "$policy" --name "$lab"
shows "policy diff $policy"
run "$ambit" policy diff "$policy" --name "$lab"
shows "shop/batch"
shows allow
shows "lab apply -f $policy"
run "$ambit" lab apply -f "$policy" --name "$lab"
run "$ambit" lab exec -n shop batch --name "$lab" -- curl -sf -m 5 http://cart.shop/
shows "hello from cart"
run "$ambit" flows --from-pod shop/batch --verdict allowed --last 1000 --name "$lab"
shows shop/cart

[ "$commands" -lt 10 ] || { echo "newcomer: $commands commands" >&2; exit 1; }
printf '\nIn %s commands from the refusal to the rule that ends it.\n' "$commands"
