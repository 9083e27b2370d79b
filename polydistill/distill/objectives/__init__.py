"""What can be asked of a student: one class and one file each, listed in `polydistill.distill.listing`."""
