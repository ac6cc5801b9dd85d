"""Programs for developers: the development cluster and the training of the shipped model."""
