"""Objects by id, durable and consistent; knows nothing of the user's files."""
