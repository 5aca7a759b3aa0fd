"""Inspecting one picture: its prediction, an explanation, and the effect of removing a region.

All that the interactive page does, without the page: a picture is `opened`, a click becomes a target
(`clicks`), a request becomes a map with its numbers (`explaining`), a brushed region is removed (`removing`).
"""
