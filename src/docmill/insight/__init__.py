"""What docmill tells people from measured evidence: doctor, tune, reports, traces. Judgement; storage asks."""
