"""The diagnosis rules, one module per section.

To add a rule, write a function in one of the modules, decorate it with the section's `rule`, and add its test to
`tests/integration/test_diagnosis.py`. If it needs a measurement that `Evidence` lacks, add the query to
`storage/reads/batch_evidence.py`.
"""

from docmill.insight.diagnosis.rules.latency import LATENCY
from docmill.insight.diagnosis.rules.memory import MEMORY
from docmill.insight.diagnosis.rules.processor import PROCESSOR
from docmill.insight.diagnosis.rules.quality import QUALITY

SECTIONS = (LATENCY, MEMORY, QUALITY, PROCESSOR)
