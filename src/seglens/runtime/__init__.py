"""Where and how a program runs: devices, several processes, threads, signals and progress."""
