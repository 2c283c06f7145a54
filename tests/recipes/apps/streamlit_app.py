"""One line, which reaches the browser through Streamlit's WebSocket."""

import streamlit

streamlit.write("said by streamlit")
