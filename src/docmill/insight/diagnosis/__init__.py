"""Why a batch was slow, ran out of memory or produced poor text: `docmill doctor --batch`.

The rules are in `rules/`, one module per section. Each reads the measurements of the batch and returns findings.
"""
