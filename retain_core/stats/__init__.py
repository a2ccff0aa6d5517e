"""Small pure functions on arrays; each module cites its source and says what happens at the edges."""
