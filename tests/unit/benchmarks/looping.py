"""Works so many rounds as each line of stdin says, and tells of each on stdout."""

import sys


def work(rounds: int) -> int:
    return sum(len(str(number % 1000)) for number in range(rounds))


work(100)
print("ready", flush=True)
for line in sys.stdin:
    print(work(int(line)), flush=True)
