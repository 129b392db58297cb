"""What a sweep needs: the space that it searches, the study that its workers share, and the report."""
