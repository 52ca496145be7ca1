"""Parts shared by samplers with a level buffer."""
