"""Mailer beside what else one could use, measured on this machine: `python -m tests.benchmarks [--quick] [NAME …]`.

Each comparison takes its contestants in turns (A B C A B C …), so that whatever else the machine does falls on all of
them, and shows medians with minimum and maximum. What is not installed is named and left out.
"""
