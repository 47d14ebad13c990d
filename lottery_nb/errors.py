"""The one error a person meets: what was wrong, what is allowed, what to do."""


class LotteryError(Exception):
    """Bad input or an unusable folder, said in one line."""
