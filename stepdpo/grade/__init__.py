"""Finding and comparing answers: two graders, and the workers that keep them within bounds of time and memory."""
