"""Parts that samplers with a level buffer share."""
