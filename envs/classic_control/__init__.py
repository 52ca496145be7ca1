"""Classic control: gymnax's cart-pole, mountain car and pendulum with physics as levels."""
