"""`python -m pipeline` prints the map: there is no command for the whole, that is run_all.sh."""

import pipeline

if __name__ == "__main__":
    print(pipeline.__doc__)  # noqa: T201
