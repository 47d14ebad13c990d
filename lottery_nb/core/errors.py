"""What a person meets in one line, and what is no error at all."""


class LotteryError(Exception):
    """Bad input or an unusable folder: what was wrong, what is allowed, what to do."""


class FailedTrainings(LotteryError):
    """Trainings that failed twice; all others that were asked for are stored."""


class Stopped(Exception):
    """Somebody asked a run to stop: what is finished is stored."""
