"""What Seglens produces, as types: records, scores, statistics of maps, scorecards. Needs no torch."""
