"""PySyncObj (`engine`) and TCP (`tcp`)."""
