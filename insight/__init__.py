"""What docmill tells people from measured evidence: doctor, tune, reports, traces. Rendering and judgement; storage asks."""
