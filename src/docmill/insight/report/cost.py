"""What a batch cost: machine time and energy, from measured seconds and joules."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from docmill.insight.report.report_data import ReportData

_J_A_KWH = 3.6e6


class EnergyBasis(StrEnum):
    """How the energy is known. PARTLY: only some attempts measured it, and the sum covers only these."""

    MEASURED = "measured"
    PARTLY = "partly measured"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of a worker's hour and of a kWh, and the power of a worker whose energy is not measured, in watts."""

    per_hour: float | None = None
    per_kwh: float | None = None
    watts: float | None = None
    currency: str = ""

    @property
    def are_given(self) -> bool:
        return self.per_hour is not None or self.per_kwh is not None


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a batch. An amount is None if its price or its quantity is not known."""

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
        """Per finished document."""
        return self._per(self.documents_done)

    @property
    def per_million_tokens(self) -> float | None:
        """Per million tokens read and written."""
        return self._per(self.tokens / 1e6)

    def _per(self, quantity: float) -> float | None:
        return self.total / quantity if self.total is not None and quantity else None


def cost_of(data: ReportData, prices: Prices) -> Cost:
    """The cost at these prices: each worker's time from its first to its last job, and its energy."""
    hours = sum(worker.seconds for worker in data.workers) / 3600
    kwh, basis = _energy(data, prices, hours)
    status = data.status
    return Cost(
        prices=prices,
        worker_hours=hours,
        machines=None if prices.per_hour is None else prices.per_hour * hours,
        energy_kwh=kwh,
        energy_basis=basis,
        energy=None if prices.per_kwh is None or kwh is None else prices.per_kwh * kwh,
        documents_done=status.documents_total - status.documents_open - status.documents_failed,
        tokens=data.tokens,
    )


def _energy(data: ReportData, prices: Prices, hours: float) -> tuple[float | None, EnergyBasis | None]:
    """kWh: measured if every successful attempt measured it, otherwise assumed or partly measured."""
    measured = data.succeeded.energy_measured
    measured_kwh = sum(totals.energy_j for totals in data.outcomes.values()) / _J_A_KWH
    if measured and measured == data.succeeded.attempts:
        return measured_kwh, EnergyBasis.MEASURED
    if prices.watts is not None:
        return prices.watts * hours / 1000, EnergyBasis.ASSUMED
    return (measured_kwh, EnergyBasis.PARTLY) if measured else (None, None)
