"""What turns notebooks into a course: progress, copies that keep one's work, and releases for a class."""
