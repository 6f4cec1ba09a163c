"""Several fits at a time: their networks run as one program, all else is each fit's own.

What an image comes to depends neither on the size of the batch nor on what else is in it, up to rounding: input, seed,
data term, average, stop and recovery are those of a fit by itself, and the channels of one network do not meet those of
another. A fit that has ended leaves, and the next one takes its place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.dip.compiling import Program
from dipmed.dip.fit import Loss
from dipmed.dip.loop import Course, DeepImagePrior, Leg
from dipmed.dip.method import FitMethod
from dipmed.dip.stack import Row, Stack
from dipmed.dip.stopping import n_fits
from dipmed.dip.uncertainty import Uncertainty
from dipmed.scan import DivergedError, Reconstruction
from operators import LinearOperator

Key = TypeVar("Key", bound=Hashable)
Order = tuple[Key, DeepImagePrior, Tensor, LinearOperator]
"""A name, a fit that is to be done, and its data and operator."""

Ended = Reconstruction | DivergedError | None
"""What comes of a fit: an image, the error of one that diverged twice, or None of one that was not begun."""

_OWN_HOOKS = ("make_network", "make_optimizers", "predict", "before_step")
"""Of methods: what a fit among others has in common with them."""


def objection(method: type[FitMethod], config: FitConfig, uncertainty: Uncertainty | None = None) -> str | None:
    """Say why such fits have to run one by one; None when they can be a batch."""
    if any(getattr(method, hook) is not getattr(FitMethod, hook) for hook in _OWN_HOOKS):
        return f"{method.name} has a network or steps of its own"
    reasons = {
        "an ensemble is a series of fits": uncertainty is not None and uncertainty.kind == "ensemble",
        "a stopping rule needs a twin of each fit": n_fits(config) > 1,
        "a time limit is for one fit": config.time_limit is not None,
        "features are computed again to save memory": config.checkpointing,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


@dataclass
class _Member(Generic[Key]):
    """A fit in the batch, its place there, and the moment up to which its time is accounted for."""

    key: Key
    course: Course
    leg: Leg
    row: Row
    since: float

    def follow(self, leg: Leg) -> None:
        """Go on with the next fit of the same image, in the same place."""
        if leg.fit is not self.leg.fit:
            self.row.release()
            self.row = _seat(leg, self.row.stack, self.row.number)
        self.leg = leg

    def account(self, own_seconds: float) -> None:
        """Count the time since the last call as that of other fits, but for ``own_seconds``."""
        now = time.perf_counter()
        self.leg.seconds_elsewhere += now - self.since - own_seconds
        self.since = now


def _seat(leg: Leg, stack: Stack, number: int) -> Row:
    """Give a fit its place."""
    row = Row(stack, number, leg.fit)
    leg.fit.move_by([row])
    return row


class Batch(Generic[Key]):
    """Fits several images at a time.

    Parameters
    ----------
    in_flight
        How many, at most.
    compiles
        Compile the network and the step, once for all images; where that fails they run as they are.

    Attributes
    ----------
    messages
        What went another way than was asked for.
    """

    def __init__(self, in_flight: int, *, compiles: bool = False) -> None:
        self.in_flight = in_flight
        self.compiles = compiles
        self.messages: list[str] = []
        self._stack: Stack | None = None
        self._members: list[_Member[Key]] = []
        self._free = list(range(in_flight))
        self._ended: deque[tuple[Key, Ended]] = deque()

    def run(self, orders: Iterable[Order[Key]]) -> Iterator[tuple[Key, Ended]]:
        """Yield each name with its image, or with the error of a fit that diverged twice, as they come.

        After an interruption there are the best images so far, None of fits that have none yet, and no more orders are
        taken.

        Raises
        ------
        torch.cuda.OutOfMemoryError
            When memory does not hold a single fit.
        DipmedError
            When the images do not have one shape, or the fits not one network.
        """
        waiting = iter(orders)
        order: Order[Key] | None = None
        try:
            while True:
                while len(self._members) < self.in_flight and (order := order or next(waiting, None)) is not None:
                    if not self._take(order):
                        break
                    order = None
                if not self._members:
                    return
                self._advance()
                while self._ended:
                    yield self._ended.popleft()
        except KeyboardInterrupt:
            yield from (*self._ended, *self._interrupt())
            if order is not None:
                yield order[0], None

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _take(self, order: Order[Key]) -> bool:
        """Begin a fit; False where memory has no place for one more."""
        key, prior, y, A = order
        try:
            course = prior.course(y, A)
            leg = next(course)
            if self._stack is None:
                self._stack = Stack(self.in_flight, leg.fit, Program(self.compiles, leg.fit.device))
            member = _Member(key, course, leg, _seat(leg, self._stack, self._free[-1]), time.perf_counter())
        except torch.cuda.OutOfMemoryError:
            if self._stack is None or not self._members:
                raise
        else:
            self._free.pop()
            self._members.append(member)
            return True
        self.in_flight = len(self._members)
        self._run_at_once(self._stack, min(self._stack.at_once, self.in_flight))
        return False

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _advance(self) -> None:
        """Do a step of all fits, and let go of those that it has ended."""
        start = time.perf_counter()
        members = tuple(self._members)
        for member in members:
            member.leg.fit.decay_rates()
        seen = [member.leg.fit.method.network_input(member.leg.fit) for member in members]
        losses: list[Loss] = []
        while len(losses) < len(members):
            losses += self._pass(members[len(losses) :], seen[len(losses) :])
        for member, loss in zip(members, losses, strict=True):
            member.leg.fit.accept(loss)
        share = (time.perf_counter() - start) / len(members)
        for member, loss in zip(members, losses, strict=True):
            member.account(share)
            self._look(member, loss)

    def _pass(self, members: Sequence[_Member[Key]], seen: Sequence[Tensor]) -> list[Loss]:
        """Move the weights of as many of these fits as run at once; none where that failed in a way that can be mended.

        Nothing changes before all is computed, so that it can be done again, with the same noise on the inputs.
        """
        stack = members[0].row.stack
        n = min(stack.at_once, len(members))
        try:
            return self._move(members[:n], seen[:n])
        except torch.cuda.OutOfMemoryError:
            if n == 1:
                raise
        except Exception as error:  # compilers fail in many ways; what is no fault of theirs comes again without
            if not stack.program.compiles:
                raise
            stack.program.give_up()
            self.messages.append(f"torch could not compile the fit, which went on without: {_first_line(error)}")
            return []
        # outside of the handler, which holds on to what was computed so far
        self._run_at_once(stack, n // 2)
        return []

    def _run_at_once(self, stack: Stack, n: int) -> None:
        stack.at_once = n
        torch.cuda.empty_cache()
        self.messages.append(f"the GPU's memory was full; the fits went on with {n} at a time")

    def _move(self, members: Sequence[_Member[Key]], seen: Sequence[Tensor]) -> list[Loss]:
        rows = [member.row for member in members]
        stack = rows[0].stack
        stack.program.begin_step()
        weights, channels = stack.forward(rows, seen)
        fits = [member.leg.fit for member in members]
        losses = [fit.loss_of(fit.image_of(own)) for fit, own in zip(fits, channels, strict=True)]
        torch.stack([loss.surrogate for loss in losses]).sum().backward()  # type: ignore[no-untyped-call]
        stack.step(rows, weights)
        return losses

    def _look(self, member: _Member[Key], loss: Loss) -> None:
        """Judge a step of one fit, and end it if that says so."""
        try:
            reason = member.leg.tell(member.leg.fit.look(loss.value))
            if reason is not None:
                member.account(0.0)
                member.follow(member.course.send(reason))
        except StopIteration as end:
            self._end(member, end.value)
        except DivergedError as error:
            self._end(member, error)

    def _end(self, member: _Member[Key], result: Reconstruction | DivergedError) -> None:
        self._ended.append((member.key, result))
        self._members.remove(member)
        self._free.append(member.row.number)

    def _interrupt(self) -> list[tuple[Key, Ended]]:
        """End all fits that have begun."""
        return [(member.key, self._best_so_far(member)) for member in self._members]

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _best_so_far(self, member: _Member[Key]) -> Ended:
        try:
            member.course.send(member.leg.interrupt())
        except StopIteration as end:
            image: Ended = end.value
            return image
        except KeyboardInterrupt:
            pass
        return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
