"""A cluster on this machine alone: `skep up`, `skep down`, `skep local`."""
