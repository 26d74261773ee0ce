"""The notifier's story: finals into the ledger, runs closed when quiet; when all is final, a report, a mail, a card."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import msgspec

from fusebus.bus import Context
from fusebus.contracts.messages import (
    MANIFEST_LOOK_SECONDS,
    BudgetCrossed,
    CancelRun,
    CloseRun,
    DuplicateFound,
    FleetChanged,
    ImageAnalysed,
    ImageFailed,
    ImageRejected,
    Message,
    ModelChanged,
    ModelRefused,
    RunCheck,
    UploadsHeld,
    WorkLate,
    manifest_check,
    work_id,
)
from fusebus.contracts.outcomes import Done, Outcome, Outgoing, Reject, Retry, done, retry
from fusebus.host import log_fields
from fusebus.ledger import LedgerError, RunRow, RunState
from fusebus.notifier import finals, policy
from fusebus.notifier.alerts import budget_alert, held_alert, late_alert
from fusebus.notifier.cancelling import cancel
from fusebus.notifier.completion import Completion
from fusebus.notifier.dead_letters import DeadLetterWatch
from fusebus.notifier.listed import listed_of
from fusebus.notifier.policy import Look, Phase
from fusebus.notifier.ports import Ports
from fusebus.notifier.telling import told
from fusebus.notifier.twins import waits

_log = logging.getLogger(__name__)

PAUSE_PER_LOOK = 9.0  # times as long as the look took: a run of many uploads is looked at less often
EARLY = 1_000_000
"""First number of the checks that a run gets when it is closed early; its others count from 0."""
BY_MANIFEST = "manifest"
"""Who asked for the end of a run that closes because all that is listed has arrived."""
LONGEST_PAUSE = timedelta(seconds=120)  # well within the time in which an uncertain mail may be repeated


class Handler:
    """Takes one message of `results` or `fleet` at a time, many side by side."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._watch = DeadLetterWatch(ports)
        self._completion = Completion(ports)

    async def __call__(self, message: Message, context: Context) -> Outcome:
        """What became of the message. Raises what the world raised: the worker loop counts it as a failure."""
        with log_fields(run=getattr(message, "run_id", None), upload=getattr(message, "upload_id", None)):
            match message:
                case ImageAnalysed() | ImageFailed() | ImageRejected() | DuplicateFound():
                    return await self._final(message, context)
                case RunCheck():
                    return await (self._check_manifests(message) if message.manifest else self._check(message))
                case CloseRun():
                    return await self._close(message, context)
                case CancelRun():
                    return await self._cancel(message, context)
                case BudgetCrossed() | WorkLate() | UploadsHeld():
                    return await self._alert(message, context)
                case FleetChanged() | ModelChanged() | ModelRefused():
                    _log.info("fleet", extra={"event": msgspec.to_builtins(message)})
                    return done()
                case _:
                    return Reject(reason="not_for_notifier", description=f"{work_id(message)[:100]} belongs elsewhere")

    async def watch_dead_letters(self) -> None:
        """One look at all dead-letter queues, and at the runs that it concerns, whatever fails with one of them."""
        for run_id in sorted(await self._watch.look()):
            with log_fields(run=run_id):
                try:
                    await self._look(run_id)
                except Exception:
                    _log.exception("the run is left to its next check, or to the next look")

    async def _final(self, message: finals.FinalMessage, context: Context) -> Outcome:
        try:
            if isinstance(message, DuplicateFound) and await waits(message, self._ports.ledger):
                return done()
            outcome = await finals.record(message, self._ports.ledger)
        except LedgerError as error:
            return self._later(context, error)
        if finals.was_recorded(outcome):
            await self._complete_early(message.run_id)
        return outcome

    async def _complete_early(self, run_id: str) -> None:
        """Spare a complete run its wait for the next check; what fails here, that check does again."""
        try:
            await self._completion.after_final(run_id)
        except Exception:
            _log.exception("the run is left to its next check")

    async def _check(self, message: RunCheck) -> Outcome:
        """Look at the run, and arm the next check unless it is complete.

        The chain of checks never breaks: whatever fails is logged, and tried again by the next one.
        """
        ports = self._ports
        began = ports.clock()
        again_at = began + timedelta(seconds=ports.settings.recheck_seconds)
        try:
            found = await self._look(message.run_id)
            if found is None:
                return Reject(reason="unknown_run", description=f"there is no run {message.run_id}")
            if found.look is Look.NOTHING:
                return done()
            again_at = found.again_at or again_at
        except Exception:
            _log.exception("check failed, another one follows")
        now = ports.clock()
        again_at = max(again_at, now + min((now - began) * PAUSE_PER_LOOK, LONGEST_PAUSE))
        following = msgspec.structs.replace(message, sequence=message.sequence + 1)
        return Done((Outgoing(message=following, enqueue_at=again_at),))

    async def _check_manifests(self, message: RunCheck) -> Outcome:
        """Close the run once all that its manifests list has arrived; until it is closed, look again and again."""
        ports = self._ports
        began = ports.clock()
        try:
            run = await ports.ledger.run(message.run_id)
            if run is None:
                return Reject(reason="unknown_run", description=f"there is no run {message.run_id}")
            if run.state is not RunState.OPEN:
                return done()
            listed = await listed_of(await ports.ledger.contents(run.run_id), ports.results)
            if not any(not manifest.reason for manifest in listed.manifests):
                return done()
            if listed.is_complete:
                closed = await ports.ledger.close_run(run.run_id, began, requested_by=BY_MANIFEST, unchanged=run)
                if closed is not None and closed.state is not RunState.OPEN:
                    _log.info("run is closed", extra={"because": "all that is listed has arrived"})
                    return await self._finish_early(closed)
        except Exception:
            _log.exception("the look at the manifests failed, another one follows")
        now = ports.clock()
        pause = max((now - began) * PAUSE_PER_LOOK, timedelta(seconds=ports.settings.recheck_seconds))
        later = datetime.fromtimestamp((message.sequence + 1) * MANIFEST_LOOK_SECONDS, UTC)  # a number of its own
        again_at = max(later, now + min(pause, LONGEST_PAUSE))
        following = manifest_check(message.run_id, message.supplier, again_at)
        return Done((Outgoing(message=following, enqueue_at=again_at),))

    async def _finish_early(self, run: RunRow) -> Outcome:
        """Complete a run that was closed before it was quiet, or look at it soon: its own next check may be far off."""
        try:
            if await self._completion.finish(run):
                return done()
        except Exception:
            _log.exception("the run is left to its next check")
        soon = self._ports.clock() + timedelta(seconds=self._ports.settings.recheck_seconds)
        check = RunCheck(run_id=run.run_id, supplier=run.supplier, sequence=EARLY)
        return Done((Outgoing(message=check, enqueue_at=soon),))

    async def _close(self, message: CloseRun, context: Context) -> Outcome:
        try:
            run = await self._ports.ledger.close_run(
                message.run_id, self._ports.clock(), requested_by=message.requested_by
            )
        except LedgerError as error:
            return self._later(context, error)
        if run is None:
            return Reject(reason="unknown_run", description=f"there is no run {message.run_id}")
        _log.info(
            "run is closed",
            extra={"because": f"asked by {run.close_requested_by}" if run.close_requested_by else "quiet"},
        )
        return await self._finish_early(run)

    async def _cancel(self, message: CancelRun, context: Context) -> Outcome:
        try:
            run = await cancel(message, self._ports.ledger, self._ports.clock())
            if run is None:
                return Reject(reason="unknown_run", description=f"there is no run {message.run_id}")
            await self._look(message.run_id)
        except LedgerError as error:
            return self._later(context, error)
        return done()

    async def _look(self, run_id: str) -> policy.Step | None:
        """Close the run if it is quiet, complete it if it is over; what is left to do. None: there is no such run."""
        ports = self._ports
        run = await ports.ledger.run(run_id)
        if run is None:
            return None
        step = self._step(run)
        if step.look is Look.CLOSE:
            run = await ports.ledger.close_run(run_id, ports.clock(), unchanged=run) or run
            _log.info("run is %s", run.state.value, extra={"because": step.because})
            step = self._step(run)
        if step.look is not Look.FINISH:
            return step
        if await self._finish(run):
            return policy.Step(Look.NOTHING, None, "complete")
        return step

    async def _finish(self, run: RunRow) -> bool:
        if await self._completion.finish(run):
            return True
        if run.run_id in await self._watch.look():
            return await self._completion.finish(run)
        return False

    def _step(self, run: RunRow) -> policy.Step:
        settings = self._ports.settings
        return policy.next_step(
            Phase(run.state.value),
            run.last_upload_at,
            self._ports.clock(),
            run_quiet=settings.run_quiet_seconds,
            recheck=settings.recheck_seconds,
        )

    async def _alert(self, message: BudgetCrossed | WorkLate | UploadsHeld, context: Context) -> Outcome:
        """One mail and one card for each alert; of held uploads a mail to their supplier, or to ops as the others."""
        recipients: tuple[str, ...] = ()
        match message:
            case BudgetCrossed():
                alert = budget_alert(message)
            case WorkLate():
                alert = late_alert(message)
                why = {"job_kind": message.job_kind.value, "because": message.because}
                _log.warning("work will be late", extra=why)
            case UploadsHeld():
                alert = held_alert(message)
                recipients = (message.email,) if message.email else ()
                why = {"supplier": message.supplier, "because": message.because}
                _log.warning("a supplier's uploads are held", extra=why)
        try:
            if await told(alert, self._ports, recipients=recipients, card=not recipients):
                return done()
        except LedgerError as error:
            return self._later(context, error)
        first = self._ports.settings.recheck_seconds
        return retry("mail_outstanding", "see the mail's marker", attempt=context.attempt, first_seconds=first)

    def _later(self, context: Context, error: Exception) -> Retry:
        _log.warning("the ledger did not take it: %s", error)
        first = self._ports.settings.ledger_retry_seconds
        return retry("ledger_unavailable", error, attempt=context.attempt, first_seconds=first)
