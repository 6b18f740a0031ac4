"""The memory that models need, the machine that has to hold them, and what fits: arithmetic and facts, no judgement."""
