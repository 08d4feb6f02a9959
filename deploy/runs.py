"""``python deploy/runs.py POOL COMMAND...`` takes up what is left of POOL and becomes COMMAND, a worker of it."""

import sys

from flows.service.runs import take_up_and_become

if __name__ == "__main__":
    take_up_and_become(*sys.argv[1:])
