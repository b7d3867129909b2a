"""CRMs as real HTTP servers on 127.0.0.1, which know the truth that a loader has to arrive at."""
