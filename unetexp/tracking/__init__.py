"""Reading MLflow: where it is, a model by its address, a recorded run trained again."""
