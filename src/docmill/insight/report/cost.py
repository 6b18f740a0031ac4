"""What a batch cost: the time of machines and their energy, from measured seconds and joules."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from docmill.insight.report.report_data import ReportNumbers

_J_A_KWH = 3.6e6


class EnergyBasis(StrEnum):
    """Where the energy comes from. PARTLY: only some attempts have it, and the sum is theirs alone."""

    MEASURED = "measured"
    PARTLY = "partly measured"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Prices:
    """What the user says: the price of one worker's hour and of a kWh, and watts of a worker that are not measured."""

    per_hour: float | None = None
    per_kwh: float | None = None
    watts: float | None = None
    currency: str = ""

    @property
    def are_given(self) -> bool:
        return self.per_hour is not None or self.per_kwh is not None


@dataclass(frozen=True, slots=True)
class Cost:
    """Amounts are None where their price or their quantity is not known."""

    prices: Prices
    worker_hours: float
    machines: float | None
    energy_kwh: float | None
    energy_basis: EnergyBasis | None
    energy: float | None
    documents_done: int
    tokens: int

    @property
    def total(self) -> float | None:
        known = [amount for amount in (self.machines, self.energy) if amount is not None]
        return sum(known) if known else None

    @property
    def per_document(self) -> float | None:
        """Of those that are done."""
        return self._for(self.documents_done)

    @property
    def per_million_tokens(self) -> float | None:
        """Read and written."""
        return self._for(self.tokens / 1e6)

    def _for(self, amount: float) -> float | None:
        return self.total / amount if self.total is not None and amount else None


def cost_of(numbers: ReportNumbers, prices: Prices) -> Cost:
    """Workers are paid from their first to their last job in the batch; energy is measured rather than assumed."""
    hours = numbers.worker_seconds / 3600
    kwh, basis = _energy(numbers, prices, hours)
    status = numbers.status
    return Cost(
        prices=prices,
        worker_hours=hours,
        machines=None if prices.per_hour is None else prices.per_hour * hours,
        energy_kwh=kwh,
        energy_basis=basis,
        energy=None if prices.per_kwh is None or kwh is None else prices.per_kwh * kwh,
        documents_done=status.documents_total - status.documents_open - status.documents_failed,
        tokens=numbers.tokens,
    )


def _energy(numbers: ReportNumbers, prices: Prices, hours: float) -> tuple[float | None, EnergyBasis | None]:
    measured = numbers.succeeded.energy_measured
    measured_kwh = sum(totals.energy_j for totals in numbers.outcomes.values()) / _J_A_KWH
    if measured and measured == numbers.succeeded.attempts:
        return measured_kwh, EnergyBasis.MEASURED
    if prices.watts is not None:
        return prices.watts * hours / 1000, EnergyBasis.ASSUMED
    return (measured_kwh, EnergyBasis.PARTLY) if measured else (None, None)
