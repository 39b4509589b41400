"""What PiD does on this machine with this checkpoint, measured by its user: times, memory, exactness, seams.

`run.bench` takes a network and its parts one by one; `report` writes what is known so far after each of them. Nothing
private is in a report, see `private`.
"""
