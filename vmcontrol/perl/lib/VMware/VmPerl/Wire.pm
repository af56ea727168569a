package VMware::VmPerl::Wire;

# One connection: the way to the gateway, login, hand-over to the server, then one request and one
# reply at a time.
#
#   no host ─▶ unix socket ─▶ else loopback TCP ─┐       (no host, odd port: TCP, the socket is
#                                                │        that of another instance)
#   host ──────────────────────▶ TCP ────────────┴▶ banner ─▶ TLS, if the banner says so
#       ─▶ LOCAL, or USER and PASS ─▶ GLOBAL server ─▶ <exec> documents
#
# The socket never blocks: every wait ends at the deadline of the call. Whatever goes wrong ends the
# call through VMware::VmPerl::Constants::fail; after that the connection must not be used again.

use strict;
use warnings;

use Errno ();
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use Socket qw(AF_INET AF_INET6 AF_UNIX IPPROTO_TCP MSG_DONTWAIT MSG_PEEK SOCK_STREAM SOL_SOCKET SO_ERROR
    TCP_NODELAY getaddrinfo pack_sockaddr_un AI_NUMERICSERV);
use Time::HiRes ();

use VMware::VmPerl::Constants ();
use VMware::VmPerl::KnownHosts ();
use VMware::VmPerl::Reply ();

our $VERSION = '1.0.0';

# Longest line of the gateway; its own replies stay below 1024 bytes.
my $MAX_LINE = 4096;

# Longest reply; a list of 10 000 machines with all details has about 5 MiB.
my $MAX_REPLY = 256 * 1024 * 1024;

sub _fail { my (@what) = @_; return VMware::VmPerl::Constants::fail(@what) }

# The environment, unless this process has rights that its caller does not have.
sub environment {
    my ($gid, $effective) = map { (split ' ')[0] } "$(", "$)";
    return {} if ${^TAINT} || $< != $> || $gid != $effective;
    return \%ENV;
}

# Where the gateway of this machine is: (path of the unix socket or '', TCP port).
sub here {
    my $root = environment()->{VMSERVERD_ROOT};
    $root = '' if !defined $root;
    my ($socket, $port) = ('', 902);
    my %value;
    if (open my $file, '<', "$root/etc/vmware/config") {
        # The last line of a key wins; keys without regard to case.
        while (my $line = <$file>) {
            next if $line !~ /^\s*([^\s=#]+)\s*=\s*(?:"([^"]*)"|(.*?)\s*$)/;
            my ($key, $value) = (lc $1, defined $2 ? $2 : $3);
            $value =~ s/\|(22|7C)/chr hex $1/gie;
            $value{$key} = $value;
        }
        close $file;
    }
    $socket = $value{'authd.local.socket'};
    $socket = "$root/run/vmware/authd.sock" if !defined $socket || $socket eq '/run/vmware/authd.sock';
    my $told = $value{'authd.client.port'};
    $port = $told + 0 if defined $told && $told =~ /^[0-9]{1,5}$/ && $told > 0 && $told < 65_536;
    return ($socket, $port);
}

# Connects, logs in and is handed to the server. `%who` has hostname, port, username, password, each
# perhaps undef; `$milliseconds` is the time for all of it.
sub open_session {
    my ($class, $milliseconds, %who) = @_;
    my $self = bless { buffer => '', owner => _owner() }, $class;
    $self->begin($milliseconds);
    my ($socket, $usual) = here();
    my $port = $who{port} || $usual;
    my $host = defined $who{hostname} && length $who{hostname} ? $who{hostname} : undef;
    my $user = defined $who{username} && length $who{username} ? $who{username} : undef;
    my $shown = defined $host ? $host : 'localhost';
    $self->{peer} = ($shown =~ /:/ ? "[$shown]" : $shown) . ":$port";
    # A local login sends no secret, and who listens on this machine's ports is not told by a
    # certificate.
    $self->{local} = !defined $host && !defined $user;
    my @tried;
    if (!defined $host && length $socket && $port == $usual) {
        my $failed = $self->_unix($socket);
        push @tried, "$socket: $failed" if defined $failed;
    }
    for my $name (defined $host ? $host : ('127.0.0.1', '::1')) {
        last if $self->{handle};
        my $failed = $self->_tcp($name, $port);
        push @tried, "$name port $port: $failed" if defined $failed;
    }
    _fail(NETFAIL => 'cannot reach vmware-authd on '
            . (defined $host ? "host $host" : 'this machine')
            . ' (' . join('; ', @tried) . '). Is the service running there?')
        if !$self->{handle};
    $self->{login} = 1;
    $self->_banner;
    $self->_login($user, $who{password});
    my $line = $self->_ask('GLOBAL server');
    _refused($line) if $line !~ /^200(?: |$)/;
    delete $self->{login};
    return $self;
}

# Starts the clock of a call.
sub begin {
    my ($self, $milliseconds) = @_;
    $self->{limit} = $milliseconds;
    $self->{deadline} = _now() + $milliseconds / 1000;
    return;
}

sub _now { return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }

# Which process and thread made the connection: in others it is a copy, and two may not share it.
sub _owner { return $$ . '.' . ($INC{'threads.pm'} ? threads->tid : 0) }

sub is_mine { my ($self) = @_; return $self->{owner} eq _owner() }

# Whether the other side has not closed, as far as can be told without waiting.
sub is_open {
    my ($self) = @_;
    return 0 if !$self->{handle};
    my $piece = '';
    if ($self->{tls}) {
        my $got = $self->{handle}->peek($piece, 1);
        return defined $got ? $got > 0 : $!{EAGAIN} || $!{EWOULDBLOCK};
    }
    my $got = recv $self->{handle}, $piece, 1, MSG_PEEK | MSG_DONTWAIT;
    return defined $got ? length $piece > 0 : $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
}

sub _nonblocking {
    my ($handle) = @_;
    my $flags = fcntl $handle, F_GETFL, 0 or return;
    return fcntl $handle, F_SETFL, $flags | O_NONBLOCK;
}

# Connects one socket; returns nothing, or why not.
sub _attempt {
    my ($self, $family, $address) = @_;
    socket my $handle, $family, SOCK_STREAM, 0 or return "$!";
    _nonblocking($handle) or return "$!";
    while (!connect $handle, $address) {
        if ($!{EINPROGRESS} || $!{EINTR}) {
            $self->_wait($handle, 1);
            my $error = unpack 'i', getsockopt($handle, SOL_SOCKET, SO_ERROR);
            last if !$error;
            local $! = $error;
            return "$!";
        }
        return "$!" if !$!{EAGAIN};
        # The queue of a unix socket is full, and select(2) would not wait for room.
        $self->_rest;
        select undef, undef, undef, 0.01;
    }
    $self->{handle} = $handle;
    return;
}

sub _unix {
    my ($self, $path) = @_;
    return 'the path is too long for a socket' if length $path > 107;
    return $self->_attempt(AF_UNIX, pack_sockaddr_un($path));
}

sub _tcp {
    my ($self, $host, $port) = @_;
    my ($error, @found) =
        getaddrinfo($host, $port, { socktype => SOCK_STREAM, protocol => IPPROTO_TCP, flags => AI_NUMERICSERV });
    return "$error" if $error;
    my $failed = 'no address';
    for my $address (@found) {
        $failed = $self->_attempt($address->{family}, $address->{addr});
        if (!defined $failed) {
            setsockopt $self->{handle}, IPPROTO_TCP, TCP_NODELAY, pack('i', 1);
            return;
        }
    }
    return $failed;
}

# Reads the banner, and makes TLS where it is asked for.
sub _banner {
    my ($self) = @_;
    my $line = $self->_line;
    # 1.00, 1.0 and 1.10 are known; the number is the lowest version that a client must speak.
    my ($version) = $line =~ /^220 VMware Authentication Daemon Version (.*)/ or _refused($line);
    _fail(BADVERSION => "this client speaks version 1 of the protocol, the server says: $line")
        if $version !~ /^1(?:[.:, ]|$)/;
    return if $line !~ /SSL Required/;
    _fail(BADRESPONSE => 'bytes between the banner and TLS') if length $self->{buffer};
    my $peer = $self->{peer};
    # The hooks of the script are not for a module that may be missing.
    my $loaded = do { local ($@, $SIG{__DIE__}); eval { require IO::Socket::SSL; 1 } };
    _fail(NETFAIL => "$peer wants TLS, for which the Perl module IO::Socket::SSL is missing (Debian: libio-socket-ssl-perl)")
        if !$loaded;
    my $tls = IO::Socket::SSL->start_SSL(
        $self->{handle},
        # Trust is a matter of the fingerprint below, before any name or password is sent.
        SSL_verify_mode => IO::Socket::SSL::SSL_VERIFY_NONE(),
        SSL_version     => 'SSLv23:!SSLv2:!SSLv3:!TLSv1:!TLSv1_1',
        Timeout         => $self->_rest,
    );
    if (!$tls) {
        $self->_rest;
        my $why = $IO::Socket::SSL::SSL_ERROR || $!;
        _fail(NETFAIL => "TLS with $peer failed: $why. Both sides must speak TLS 1.2 or later");
    }
    $self->{handle} = $tls;
    $self->{tls} = 1;
    _nonblocking($tls);
    return if $self->{local};
    my $fingerprint = $tls->get_fingerprint('sha256') || '';
    $fingerprint =~ s/^sha256\$/sha256:/ or _fail(NETFAIL => "TLS with $peer: the server shows no certificate");
    my $file = VMware::VmPerl::KnownHosts::file(environment());
    my $complaint = VMware::VmPerl::KnownHosts::check($file, $peer, lc $fingerprint, sub { $self->_rest });
    _fail(NETFAIL => $complaint) if defined $complaint;
    return;
}

# Names and passwords on the wire: `%` and control characters as %XX.
sub _escaped {
    my ($name, $value) = @_;
    my $bytes = VMware::VmPerl::Reply::octets($name, $value);
    _fail(INVALIDARGS => "$name: a NUL, CR or LF") if $bytes =~ /[\0\r\n]/;
    $bytes =~ s/([%\x01-\x1f\x7f])/sprintf '%%%02X', ord $1/ge;
    return $bytes;
}

sub _login {
    my ($self, $user, $password) = @_;
    my $line;
    if (defined $user) {
        $line = $self->_ask('USER ' . _escaped(username => $user));
        _refused($line) if $line !~ /^331 /;
        $line = $self->_ask('PASS ' . _escaped(password => defined $password ? $password : ''));
    }
    else {
        $line = $self->_ask('LOCAL');
    }
    _refused($line) if $line !~ /^230 /;
    return;
}

# Numbers of the gateway that have an error of their own.
my %REFUSED = (421 => 'TIMEOUT', 514 => 'BADSTATE', 530 => 'NOACCESS', 550 => 'NOACCESS', 551 => 'NOSUCHVM', 552 => 'VMBUSY');

# A line of the gateway that was not hoped for.
sub _refused {
    my ($line) = @_;
    my ($code, $text) = $line =~ /^([0-9]{3}) (.*)/;
    my $name = defined $code ? $REFUSED{$code} : undef;
    return _fail(BADRESPONSE => $line) if !defined $name;
    if ($text =~ /^The config file (.*) is not registered\.$/) {
        $text .= qq(\nPlease register the config file on the server.  For example:\nvmware-cmd -s register "$1");
    }
    return _fail($name => $text);
}

sub _ask {
    my ($self, $command) = @_;
    $self->_write("$command\r\n");
    return $self->_line;
}

# One line of the gateway, without its end. Nothing it says is longer, so nothing longer is kept.
sub _line {
    my ($self) = @_;
    my $end;
    while (($end = index $self->{buffer}, "\n") < 0) {
        _fail(BADRESPONSE => 'a line of more than ' . $MAX_LINE . ' bytes') if length $self->{buffer} > $MAX_LINE;
        $self->_more;
    }
    my $line = substr $self->{buffer}, 0, $end + 1, '';
    $line =~ s/\r?\n\z//;
    # The text goes into messages: no control characters there, and not too much.
    $line =~ s/[\x00-\x1f\x7f]/\xef\xbf\xbd/g;
    $line = substr($line, 0, 1024) . '...' if length $line > 1024;
    return $line;
}

# Sends a request and returns the reply to it, as text.
sub exchange {
    my ($self, $xml, $milliseconds) = @_;
    $self->begin($milliseconds);
    _fail(GARBAGE => 'bytes that belong to no request') if $self->{buffer} =~ /[^\s\0]/;
    $self->{buffer} = '';
    $self->_write("$xml\n");
    # A reply ends where its root ends; `<` in a text is written `&lt;`.
    my ($from, $end) = (0);
    while (($end = index $self->{buffer}, '</exec>', $from) < 0) {
        my $length = length $self->{buffer};
        _fail(GARBAGE => "a reply of more than $MAX_REPLY bytes") if $length > $MAX_REPLY;
        _fail(GARBAGE => 'it does not start with <exec>')
            if $self->{buffer} =~ /^[\s\0]*[^\s\0<]/ || $self->{buffer} =~ /^[\s\0]*<(?!exec)[^\s]{4}/;
        $from = $length > 6 ? $length - 6 : 0;
        $self->_more;
    }
    my $reply = substr $self->{buffer}, 0, $end + 7, '';
    # Its line end may be here already; if not, the next request takes it for white space.
    $self->{buffer} =~ s/^[\s\0]+//;
    $reply =~ s/^[\s\0]+//;
    return $reply;
}

# Seconds until the deadline; past it the call ends.
sub _rest {
    my ($self) = @_;
    my $rest = $self->{deadline} - _now();
    _fail(TIMEOUT => "no answer within $self->{limit} ms") if $rest <= 0;
    return $rest;
}

# Waits until the socket can be read, or written.
sub _wait {
    my ($self, $handle, $write) = @_;
    while (1) {
        my $bits = '';
        vec($bits, fileno $handle, 1) = 1;
        my $found = select $write ? undef : $bits, $write ? $bits : undef, undef, $self->_rest;
        return if $found > 0;
        _fail(NETFAIL => "select: $!") if $found < 0 && !$!{EINTR};
    }
}

# Whether a TLS call that did not finish waits to write.
sub _wants_write {
    my ($self) = @_;
    return $self->{tls} && ($IO::Socket::SSL::SSL_ERROR || 0) == IO::Socket::SSL::SSL_WANT_WRITE();
}

# Reading or writing has failed. Before the connection stands it is the network's failure.
sub _lost {
    my ($self) = @_;
    return _fail($self->{login} ? 'NETFAIL' : 'DISCONNECT', "talking to vmware-authd on $self->{peer}: $!");
}

# Reads at least one byte more.
sub _more {
    my ($self) = @_;
    while (1) {
        my $got =
            $self->{tls}
            ? $self->{handle}->sysread($self->{buffer}, 65536, length $self->{buffer})
            : sysread $self->{handle}, $self->{buffer}, 65536, length $self->{buffer};
        return if $got;
        # Who closes while bytes of ours are unread resets the connection.
        _fail(DISCONNECT => $self->{login} ? 'vmware-authd closed it before the login' : 'the other side has closed it')
            if defined $got || $!{ECONNRESET};
        next if $!{EINTR};
        $self->_lost if !$!{EAGAIN} && !$!{EWOULDBLOCK};
        $self->_wait($self->{handle}, $self->_wants_write);
    }
}

# Writes all of it, unless the other side has closed: that is for the read that follows to tell.
sub _write {
    my ($self, $bytes) = @_;
    # A write to a closed connection is an error here, not the end of the script.
    local $SIG{PIPE} = 'IGNORE';
    my $done = 0;
    while ($done < length $bytes) {
        my $wrote =
            $self->{tls}
            ? $self->{handle}->syswrite($bytes, length($bytes) - $done, $done)
            : syswrite $self->{handle}, $bytes, length($bytes) - $done, $done;
        if ($wrote) {
            $done += $wrote;
            next;
        }
        next if $!{EINTR};
        # It has closed; a last line that says why may be there to read.
        return if $!{EPIPE} || $!{ECONNRESET};
        $self->_lost if !$!{EAGAIN} && !$!{EWOULDBLOCK};
        $self->_wait($self->{handle}, !$self->{tls} || $self->_wants_write);
    }
    return;
}

# Closes. Whoever has only a copy says nothing to the other side: a process that was forked closes what
# is its own, and another thread leaves even that, for the TLS library's part is shared between threads.
sub hang_up {
    my ($self) = @_;
    my $handle = delete $self->{handle} or return;
    local ($@, $!, $?, $SIG{__DIE__});
    local $SIG{PIPE} = 'IGNORE';
    if (!$self->{tls}) {
        close $handle;
    }
    elsif ($self->is_mine) {
        eval { $handle->close(SSL_fast_shutdown => 1) };
    }
    elsif ($self->{owner} !~ /^$$\./) {
        eval { $handle->close(SSL_no_shutdown => 1) };
    }
    return;
}

sub DESTROY { my ($self) = @_; $self->hang_up; return }

1;

__END__

=head1 NAME

VMware::VmPerl::Wire - the connection to vmware-authd and the server

=head1 DESCRIPTION

Inner part of L<VMware::VmPerl>; see there for where it connects to and which settings it reads.

=cut
