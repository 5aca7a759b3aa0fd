"""Looking at one picture: what the model says of it, why, and what becomes of that when something is removed.

All that the interactive page does, without a page: a picture is `opened`, a click becomes a target
(`pointing`), a question an answer (`asking`), a brushed region a removal (`removing`).
"""
