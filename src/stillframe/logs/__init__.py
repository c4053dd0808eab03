"""The log: lines that nobody but the program can begin, and that say about whose sake they were written for."""
