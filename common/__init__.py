"""What two or more of the seven scripts share, and the parts too large for one script."""
