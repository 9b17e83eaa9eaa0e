"""What can go wrong with the lab, as opposed to with what is tested in it."""


class LabError(Exception):
    """The lab, or one of its servers, did not do what it must."""


class LabUnavailable(LabError):
    """This machine cannot run the lab at all; the text says what is missing.

    Tests skip on it (and fail where CI=true, because a skipped proof is none).
    """
