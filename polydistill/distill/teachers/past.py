"""The student as it was when the epoch began."""

from __future__ import annotations

from polydistill.distill.teachers.copies import StudentCopy


class PastStudent(StudentCopy):
    """A copy of the student, renewed at the start of each epoch (Carrino et al. 2023, arXiv 2309.17134).

    In the first epoch it is the student as training began.
    """

    def begin_epoch(self, epoch: int) -> None:
        """Becomes what the student is now."""
        self.follow(1.0)
